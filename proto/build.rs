//! Compiles the .proto files without `protoc`: protox parses them, tonic-prost-build writes the Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["sluice/delivery/v1/delivery.proto", "sluice/config/v1/config.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
