//! Prints the CRD as YAML or, with `--reference`, the reference of its fields as Markdown. `make manifests` writes both.

use loadtest_api::crd::crd;
use loadtest_api::reference::reference;

fn main() -> Result<(), serde_yaml::Error> {
    if std::env::args().any(|arg| arg == "--reference") {
        print!("{}", reference(&crd()));
    } else {
        print!("{}", serde_yaml::to_string(&crd())?);
    }
    Ok(())
}
