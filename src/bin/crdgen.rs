//! Prints the CRD as YAML: `make manifests` writes it to `config/crd`.

use artillery_operator::api::v1alpha1::crd;

fn main() -> Result<(), serde_yaml::Error> {
    print!("{}", serde_yaml::to_string(&crd())?);
    Ok(())
}
