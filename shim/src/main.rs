//! The program; everything is in the library, so that tests and fuzz targets reach it.

use std::process::ExitCode;

use tare_shim::sys::memory::Heap;

#[global_allocator]
static HEAP: Heap = Heap;

fn main() -> ExitCode {
    tare_shim::main(std::env::args_os().skip(1))
}
