//! Starts a control plane, says where, and waits to be killed: for the test that nothing is left then.

use std::io::{self, Write as _};

use test_controlplane::ControlPlane;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plane = ControlPlane::shared().await?;
    writeln!(io::stdout().lock(), "{}", plane.directory().display())?;
    loop {
        std::thread::park();
    }
}
