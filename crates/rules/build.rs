//! Rebuilds when the shipped rules change: they are embedded in the program.

fn main() {
    println!("cargo::rerun-if-changed=../../rules");
}
