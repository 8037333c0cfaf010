//! The program; everything is in the library, so that tests and fuzz targets reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    tare_store::cli::main(std::env::args_os())
}
