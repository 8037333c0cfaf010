//! The program; everything is in the library, so that tests and fuzz targets reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tare_shim::main(std::env::args_os().skip(1))
}
