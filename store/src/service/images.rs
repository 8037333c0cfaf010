//! Images: names for blobs.

use async_trait::async_trait;
use tare_proto::images::*;
use tare_proto::{Empty, Message, MessageField, images_ttrpc};
use ttrpc::asynchronous::TtrpcContext;

use super::session::Session;
use super::wire;
use crate::error::{Error, Result};
use crate::metadata;

/// What fits into one answer.
const LARGEST: u64 = 4 << 20;

#[async_trait]
impl images_ttrpc::Images for Session {
    async fn get(&self, context: &TtrpcContext, request: GetImageRequest) -> ttrpc::Result<GetImageResponse> {
        let image = self.answer(context, move |call| call.metadata().image(&call.ns, &request.name)).await?;
        let mut response = GetImageResponse::new();
        response.image = MessageField::some(message(image));
        Ok(response)
    }

    async fn list(&self, context: &TtrpcContext, request: ListImagesRequest) -> ttrpc::Result<ListImagesResponse> {
        self.answer(context, move |call| {
            let images = call.metadata().images(&call.ns, &request.filters)?;
            let mut response = ListImagesResponse::new();
            response.images = images.into_iter().map(message).collect();
            let size = response.compute_size();
            if size > LARGEST - 1024 {
                return Err(Error::exhausted(format!(
                    "the list of {} images has {size} bytes, and an answer at most 4 MiB: ask with filters, as in name~=^a",
                    response.images.len()
                )));
            }
            Ok(response)
        })
        .await
    }

    async fn create(&self, context: &TtrpcContext, request: CreateImageRequest) -> ttrpc::Result<CreateImageResponse> {
        let image = self
            .answer(context, move |call| {
                let new = New::read(request.image)?;
                call.metadata().create_image(&call.ns, &new.name, &new.target, &new.labels)
            })
            .await?;
        let mut response = CreateImageResponse::new();
        response.image = MessageField::some(message(image));
        Ok(response)
    }

    async fn update(&self, context: &TtrpcContext, request: UpdateImageRequest) -> ttrpc::Result<UpdateImageResponse> {
        let image = self.answer(context, move |call| update(call, request)).await?;
        let mut response = UpdateImageResponse::new();
        response.image = MessageField::some(message(image));
        Ok(response)
    }

    async fn delete(&self, context: &TtrpcContext, request: DeleteImageRequest) -> ttrpc::Result<Empty> {
        self.answer(context, move |call| {
            let target = match request.target.into_option() {
                Some(target) => Some(target.digest.parse()?),
                None => None,
            };
            call.metadata().delete_image(&call.ns, &request.name, target.as_ref())?;
            call.removed(request.sync)
        })
        .await?;
        Ok(Empty::new())
    }
}

fn update(call: &super::session::Call, request: UpdateImageRequest) -> Result<metadata::Image> {
    let paths = wire::paths(request.update_mask);
    let mut image = request.image;
    // A mask may leave the target out; then none need be given.
    if image.target.is_none() && !paths.is_empty() && !paths.iter().any(|it| it == "target") {
        let name = image.as_ref().map(|it| it.name.clone()).unwrap_or_default();
        let now = call.metadata().image(&call.ns, &name)?;
        if let Some(image) = image.as_mut() {
            image.target = MessageField::some(wire::descriptor(&now.target));
        }
    }
    let new = New::read(image)?;
    call.metadata().update_image(&call.ns, &new.name, &new.target, &new.labels, &paths)
}

/// What a client says of an image.
struct New {
    name: String,
    target: crate::descriptor::Descriptor,
    labels: metadata::Labels,
}

impl New {
    fn read(image: MessageField<Image>) -> Result<Self> {
        let image = image.into_option().ok_or_else(|| Error::invalid("the request has no image"))?;
        let target = wire::from_descriptor(image.target, &format!("image {:?}", image.name))?;
        Ok(Self { name: image.name, target, labels: wire::labels(image.labels) })
    }
}

fn message(image: metadata::Image) -> Image {
    let mut message = Image::new();
    message.name = image.name;
    message.labels = wire::into_map(image.labels);
    message.target = MessageField::some(wire::into_descriptor(image.target));
    message.created_at = wire::timestamp(image.created);
    message.updated_at = wire::timestamp(image.updated);
    message
}
