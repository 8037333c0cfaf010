//! Hands the commit the program is built from to `--version`: `TARE_COMMIT` as the packager sets it, or "unknown".
fn main() {
    println!("cargo::rerun-if-env-changed=TARE_COMMIT");
    let commit = std::env::var("TARE_COMMIT").unwrap_or_else(|_| "unknown".to_owned());
    println!("cargo::rustc-env=TARE_COMMIT={commit}");
}
