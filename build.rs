//! The commit that `--version` names, and the icon and version that Windows shows in the executable's properties.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/logs/HEAD");
    println!("cargo::rerun-if-changed=static/icon.ico");
    // A source archive has no commit to name.
    let git = Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    let commit =
        git.ok().filter(|git| git.status.success()).and_then(|git| String::from_utf8(git.stdout).ok());
    let version = env!("CARGO_PKG_VERSION");
    let version = match commit.as_deref().map(str::trim) {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    };
    println!("cargo::rustc-env=VERSION={version}");

    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "windows") {
        let mut resource = winresource::WindowsResource::new();
        resource.set_icon("static/icon.ico");
        resource.set("ProductName", "local-api-proxy");
        resource.set("FileDescription", "OpenRouter's free models at http://localhost:5000/v1");
        if let Err(error) = resource.compile() {
            println!("cargo::warning=the executable gets no icon: {error}");
        }
    }
}
