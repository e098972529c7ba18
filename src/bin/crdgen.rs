//! Prints the CRD of [`LoadTest`] as YAML: `make manifests` writes it to `config/crd`.

use artillery_operator::api::v1alpha1::LoadTest;
use kube::CustomResourceExt;

fn main() -> Result<(), serde_yaml::Error> {
    print!("{}", serde_yaml::to_string(&LoadTest::crd())?);
    Ok(())
}
