//! Root file systems in layers, as mounts to be done by whoever runs the container.
