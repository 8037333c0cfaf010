//! `tare.store.v1`: whole images. One call of a flow each.

use async_trait::async_trait;
use tare_proto::store::*;
use tare_proto::{MessageField, store_ttrpc};
use ttrpc::asynchronous::{ServerStream, ServerStreamSender, TtrpcContext};

use super::progress::{Also, Out, tell};
use super::session::Session;
use super::{archive, upkeep, wire};
use crate::descriptor::Platform;
use crate::documents::{self, Wanted};
use crate::error::Error;
use crate::registry::{self, Access, Reference, platform};
use crate::unpack::compress::Compression;
use crate::{commit, gc, images, progress, pull, push, unpack_image};

#[async_trait]
impl store_ttrpc::Store for Session {
    async fn pull(
        &self,
        context: &TtrpcContext,
        request: PullRequest,
        stream: ServerStreamSender<Progress>,
    ) -> ttrpc::Result<()> {
        let call = self.call(context)?;
        let (progress, updates) = progress::Progress::watched();
        let work = async {
            let request = pull::Request {
                reference: request.reference.parse()?,
                wanted: wanted(&request.platform, request.all_platforms)?
                    .unwrap_or_else(|| Wanted::One(platform::host())),
                unpack: (!request.no_unpack).then_some(request.snapshotter),
                access: access(request.registry, &progress),
                labels: wire::labels(request.labels),
                discard_blobs: request.discard_blobs,
                skip_foreign: request.skip_foreign_layers,
                referrers: request.referrers,
            };
            let pulled = pull::pull(&self.store, &call.ns, request, &progress).await?;
            if pulled.discarded {
                call.blocking(|call| call.removed(true)).await?;
            }
            Ok(pulled)
        };
        let ended = |pulled: pull::Pulled| {
            let mut ended = Result::new();
            ended.images.push(image_result(&pulled.name, &pulled.target, &pulled.images, pulled.unchanged));
            ended.fetched = pulled.fetched;
            ended
        };
        self.stream(context, tell(&Out::Plain(stream), updates, Also::Nothing, work, ended)).await
    }

    async fn push(
        &self,
        context: &TtrpcContext,
        request: PushRequest,
        stream: ServerStreamSender<Progress>,
    ) -> ttrpc::Result<()> {
        let call = self.call(context)?;
        let (progress, updates) = progress::Progress::watched();
        let work = async {
            let target = Some(request.target).filter(|it| !it.is_empty());
            let request = push::Request {
                source: request.source,
                target: target.map(|it| it.parse::<Reference>()).transpose()?,
                wanted: wanted(&request.platform, request.all_platforms)?,
                access: access(request.registry, &progress),
            };
            push::push(&self.store, &call.ns, request, &progress).await
        };
        let ended = |pushed: push::Pushed| {
            let mut ended = Result::new();
            ended.images.push(image_result(&pushed.name, &pushed.target, &[], pushed.unchanged));
            ended.sent = pushed.sent;
            ended
        };
        self.stream(context, tell(&Out::Plain(stream), updates, Also::Nothing, work, ended)).await
    }

    async fn import(&self, context: &TtrpcContext, stream: ServerStream<Progress, ImportRequest>) -> ttrpc::Result<()> {
        let stream = stream.into();
        let call = self.call(context)?;
        self.stream(context, archive::import(&call, stream)).await
    }

    async fn export(
        &self,
        context: &TtrpcContext,
        request: ExportRequest,
        stream: ServerStreamSender<Progress>,
    ) -> ttrpc::Result<()> {
        let call = self.call(context)?;
        self.stream(context, archive::export(&call, request, stream)).await
    }

    async fn commit(
        &self,
        context: &TtrpcContext,
        request: CommitRequest,
        stream: ServerStreamSender<Progress>,
    ) -> ttrpc::Result<()> {
        let call = self.call(context)?;
        let (progress, updates) = progress::Progress::watched();
        let work = async {
            let some = |it: String| Some(it).filter(|it| !it.is_empty());
            let request = commit::Request {
                snapshot: request.snapshot,
                snapshotter: request.snapshotter,
                base: some(request.base),
                name: some(request.name),
                author: request.author,
                message: request.message,
                created_by: request.created_by,
                config: some(request.config).map(String::into_bytes),
                source_date: request.source_date.as_ref().map(|it| it.seconds),
                compression: compression(&request.compression)?,
                labels: wire::labels(request.labels),
                machine: machine(&request.platform)?,
                empty_layer: request.empty_layer,
            };
            commit::commit(&self.store, &call.ns, request, &progress).await
        };
        let ended = |made: commit::Made| {
            let mut ended = Result::new();
            ended.images.push(image_result(&made.name, &made.image.manifest.clone(), &[made.image], false));
            ended
        };
        self.stream(context, tell(&Out::Plain(stream), updates, Also::Nothing, work, ended)).await
    }

    async fn unpack(
        &self,
        context: &TtrpcContext,
        request: UnpackRequest,
        stream: ServerStreamSender<Progress>,
    ) -> ttrpc::Result<()> {
        let call = self.call(context)?;
        let (progress, updates) = progress::Progress::watched();
        let work = async {
            let machine = machine(&request.platform)?;
            let (name, snapshotter) = (&request.image, &request.snapshotter);
            unpack_image::unpack(&self.store, &call.ns, name, machine, snapshotter, &progress).await
        };
        let ended = |image: documents::Image| {
            let mut ended = Result::new();
            ended.images.push(image_result(&request.image, &image.manifest.clone(), &[image], false));
            ended
        };
        self.stream(context, tell(&Out::Plain(stream), updates, Also::Nothing, work, ended)).await
    }

    async fn collect(&self, context: &TtrpcContext, request: CollectRequest) -> ttrpc::Result<CollectResponse> {
        let collected = self
            .answer(context, move |call| {
                let prune = gc::Prune {
                    ns: call.ns.clone(),
                    dangling_only: !request.prune_images,
                    before: wire::time(&request.created_before),
                };
                let prunes = request.prune_images || request.prune_dangling;
                call.collect(&gc::Options { dry_run: request.dry_run, prune: prunes.then_some(prune) })
            })
            .await?;
        let mut response = CollectResponse::new();
        response.blobs = collected.blobs;
        response.snapshots = collected.snapshots;
        response.ingests = collected.ingests;
        response.leases = collected.leases;
        response.bytes = collected.bytes;
        response.images = collected.images;
        Ok(response)
    }

    async fn usage(&self, context: &TtrpcContext, request: UsageRequest) -> ttrpc::Result<UsageResponse> {
        self.answer(context, move |call| upkeep::usage(call, &request)).await
    }

    async fn check(
        &self,
        context: &TtrpcContext,
        request: CheckRequest,
        stream: ServerStreamSender<Progress>,
    ) -> ttrpc::Result<()> {
        let call = self.call(context)?;
        self.stream(context, upkeep::check(&call, request, stream)).await
    }

    async fn inspect(&self, context: &TtrpcContext, request: InspectRequest) -> ttrpc::Result<InspectResponse> {
        let call = self.call(context)?;
        let machine = machine(&request.platform)?;
        let found = images::inspect(&self.store, &call.ns, &request.image, machine, &request.snapshotter).await?;
        let mut response = InspectResponse::new();
        response.name = found.image.name;
        response.target = MessageField::some(wire::descriptor(&found.image.target));
        response.manifest = MessageField::some(wire::descriptor(&found.manifest.0));
        response.manifest_json = found.manifest.1;
        response.config_json = found.config;
        if let Some(image) = found.chosen {
            response.config = MessageField::some(wire::descriptor(&image.config));
            response.chain_id = image.chain_id().map(ToString::to_string).unwrap_or_default();
            response.diff_ids = image.diff_ids.iter().map(ToString::to_string).collect();
            response.platform = MessageField::some(wire::platform(&image.platform));
        }
        response.unpacked = found.unpacked;
        response.labels = wire::map(&found.image.labels);
        response.created_at = wire::timestamp(found.image.created);
        response.updated_at = wire::timestamp(found.image.updated);
        response.names = found.names;
        response.size = found.size;
        Ok(response)
    }

    async fn tag(&self, context: &TtrpcContext, request: TagRequest) -> ttrpc::Result<TagResponse> {
        let call = self.call(context)?;
        let mut response = TagResponse::new();
        response.name = images::tag(&self.store, &call.ns, &request.source, &request.target, request.force).await?;
        Ok(response)
    }

    async fn referrers(&self, context: &TtrpcContext, request: ReferrersRequest) -> ttrpc::Result<ReferrersResponse> {
        let call = self.call(context)?;
        let kind = Some(request.artifact_type.as_str()).filter(|it| !it.is_empty());
        let access = request.remote.then(|| access(request.registry, &progress::Progress::silent()));
        let found = images::referrers(&self.store, &call.ns, &request.image, kind, access).await?;
        let mut response = ReferrersResponse::new();
        let one = |it: images::Referrer| {
            let mut message = Referrer::new();
            message.descriptor = MessageField::some(wire::descriptor(&it.at));
            message.artifact_type = it.kind;
            message
        };
        response.referrers = found.into_iter().map(one).collect();
        Ok(response)
    }

    async fn tags(&self, context: &TtrpcContext, request: TagsRequest) -> ttrpc::Result<TagsResponse> {
        self.call(context)?;
        let repository: registry::Repository = request.repository.parse()?;
        let access = access(request.registry, &progress::Progress::silent());
        let mut response = TagsResponse::new();
        response.tags = self.store.registry.remote(&repository, access).await?.tags().await?;
        Ok(response)
    }

    async fn search(&self, context: &TtrpcContext, request: SearchRequest) -> ttrpc::Result<SearchResponse> {
        self.call(context)?;
        let access = access(request.registry, &progress::Progress::silent());
        let host = if request.host.is_empty() { registry::reference::DEFAULT_REGISTRY } else { &request.host };
        let found = self.store.registry.search(host, &request.term, request.limit as usize, access).await?;
        let mut response = SearchResponse::new();
        response.results = found
            .into_iter()
            .map(|it| {
                let mut result = SearchResult::new();
                (result.name, result.description, result.stars) = (it.name, it.description, it.stars);
                (result.official, result.automated) = (it.is_official, it.is_automated);
                result
            })
            .collect();
        Ok(response)
    }

    async fn login(&self, context: &TtrpcContext, request: LoginRequest) -> ttrpc::Result<LoginResponse> {
        self.call(context)?;
        let access = access(request.registry, &progress::Progress::silent());
        let host = match &access.credentials {
            Some(it) if !it.host.is_empty() => it.host.clone(),
            _ => return Err(Error::invalid("log in where? The credentials name no host").into()),
        };
        let mut response = LoginResponse::new();
        response.identity_token = self.store.registry.login(&host, access).await?.unwrap_or_default();
        Ok(response)
    }

    async fn info(&self, context: &TtrpcContext, _: InfoRequest) -> ttrpc::Result<InfoResponse> {
        self.answer(context, |call| {
            let store = call.store();
            let names = store.snapshots.names();
            let mut response = InfoResponse::new();
            response.version = env!("CARGO_PKG_VERSION").to_owned();
            response.root = store.root.path().to_string_lossy().into_owned();
            response.default_snapshotter = names[0].to_owned();
            response.snapshotters = names.map(str::to_owned).to_vec();
            response.platform = platform::host().to_string();
            response.pid = std::process::id().cast_signed();
            response.free_bytes = store.root.free_bytes()?;
            Ok(response)
        })
        .await
    }
}

/// Which of an index; none: nothing was said.
pub(super) fn wanted(platform: &str, all: bool) -> crate::error::Result<Option<Wanted>> {
    match (machine(platform)?, all) {
        (_, true) => Ok(Some(Wanted::All)),
        (machine, false) => Ok(machine.map(Wanted::One)),
    }
}

fn compression(word: &str) -> crate::error::Result<Compression> {
    match word {
        "" | "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "none" => Ok(Compression::None),
        other => Err(Error::invalid(format!("a layer is not compressed by {other:?}: write gzip, zstd or none"))),
    }
}

fn machine(platform: &str) -> crate::error::Result<Option<Platform>> {
    if platform.is_empty() { Ok(None) } else { platform.parse().map(Some) }
}

/// How a registry is reached; what it takes in retries is told to the caller.
pub(super) fn access(options: MessageField<RegistryOptions>, progress: &progress::Progress) -> Access {
    let options = options.unwrap_or_default();
    let credentials = options.credentials.into_option().map(|it| registry::Credentials {
        host: it.host,
        username: it.username,
        password: it.password,
        identity_token: it.identity_token,
        registry_token: it.registry_token,
    });
    let progress = progress.clone();
    Access {
        credentials: credentials.filter(|it| !it.is_empty()),
        plain_http: options.plain_http,
        skip_verify: options.skip_verify,
        docker_config: Some(options.docker_config).filter(|it| !it.is_empty()),
        notice: Some(std::sync::Arc::new(move |sentence| progress.notice(sentence))),
    }
}

/// What became of an image; of several platforms, this host's comes first.
pub(super) fn image_result(
    name: &str,
    target: &crate::descriptor::Descriptor,
    images: &[documents::Image],
    unchanged: bool,
) -> ImageResult {
    let host = platform::host();
    let ours = images.iter().min_by_key(|it| platform::rank(&host, &it.platform).unwrap_or(usize::MAX));
    let mut result = ImageResult::new();
    result.name = name.to_owned();
    result.target = MessageField::some(wire::descriptor(target));
    if let Some(image) = ours {
        result.manifest = image.manifest.digest.to_string();
        result.config = image.config.digest.to_string();
        result.chain_id = image.chain_id().map(ToString::to_string).unwrap_or_default();
    }
    result.unchanged = unchanged;
    result
}
