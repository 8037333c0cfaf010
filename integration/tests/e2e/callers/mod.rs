//! The programs that call a runtime (podman, buildah, containerd, dockerd, and an ordinary user), each run for real in a
//! [`World`](integration::world::World) of its own.

mod buildah;
mod ctr;
mod dockerd;
mod podman;
mod rootless;
mod systemd;
