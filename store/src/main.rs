//! The program; everything is in the library, so that tests and fuzz targets reach it.

fn main() {
    eprintln!("tare-store {}", env!("CARGO_PKG_VERSION"));
}
