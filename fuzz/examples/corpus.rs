//! Writes the valid inputs of every target to `corpus/`, for the fuzzer to start from.

use std::fs;
use std::io;
use std::path::Path;

use outrider_fuzz::{chunks, engine, frames, wire};

fn main() -> io::Result<()> {
    let targets = [
        ("wire", wire::examples()),
        ("engine", engine::examples()),
        ("chunks", chunks::examples()),
        ("frames", frames::examples()),
    ];
    for (target, examples) in targets {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        fs::create_dir_all(&folder)?;
        for (number, bytes) in examples.iter().enumerate() {
            fs::write(folder.join(format!("example-{number}")), bytes)?;
        }
    }
    Ok(())
}
