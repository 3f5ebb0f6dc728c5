//! Who uses a server, so that it ends with its last user.

use anyhow::{Context, Result};
use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// This process as a user of the server in a folder, until dropped or until the process ends.
pub(crate) struct Registration(PathBuf);

impl Registration {
    /// Registers this process; fails when the server is on its way out.
    pub(crate) fn enter(dir: &Path) -> Result<Self> {
        let file = dir.join("clients").join(std::process::id().to_string());
        fs::write(&file, "").context("the server is going down")?;
        anyhow::ensure!(file.exists(), "the server is going down");
        Ok(Self(file))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes the folder of a server and starts the process that ends it `patience_secs` after its last user.
pub(crate) fn watch(dir: &Path, patience_secs: u32) -> Result<()> {
    fs::create_dir_all(dir.join("clients"))?;
    fs::create_dir_all(dir.join("nodes"))?;
    let script = dir.join("watch.sh");
    fs::write(&script, include_str!("../watch.sh"))?;
    let watch = Command::new("sh")
        .arg(&script)
        .arg(dir)
        .arg(patience_secs.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Not among those whom a Ctrl-C at the terminal ends.
        .process_group(0)
        .spawn()
        .context("start the process that ends the server")?;
    fs::write(dir.join("watch.pid"), watch.id().to_string())?;
    Ok(())
}
