//! What Sluice needs of a registry, checked on the fake one and on a real one.

use std::time::Duration;

use registry_cache::{Error, Registry, Settings};

const CLICK: &str = r#"{"type":"record","name":"Click","fields":[{"name":"at","type":"long"}]}"#;
const CLICK_2: &str = r#"{"type":"record","name":"Click","fields":[{"name":"at","type":"long"},{"name":"by","type":"string","default":""}]}"#;

/// What Sluice needs of any registry. `prefix` keeps subjects of several runs apart.
pub async fn check(url: &str, prefix: &str) {
    let registry = Registry::open(Settings {
        timeout: Duration::from_secs(20),
        ..Settings::new(url)
    })
    .unwrap();
    let subject = format!("{prefix}-click-value");
    let named = |text: &str| text.replace("Click", &format!("Click_{}", prefix.replace('-', "_")));
    let (first, second) = (named(CLICK), named(CLICK_2));
    assert_eq!(
        registry.versions(&subject).await.unwrap_err(),
        Error::UnknownSubject {
            subject: subject.clone()
        }
    );
    assert!(
        registry.compatible(&subject, &first).await.unwrap(),
        "nothing to be compatible with"
    );
    let id = registry.register(&subject, &first).await.unwrap();
    assert_eq!(
        registry.register(&subject, &first).await.unwrap(),
        id,
        "same text, same id"
    );
    registry.set_compatibility(Some(&subject), "BACKWARD").await.unwrap();
    assert!(registry.compatible(&subject, &second).await.unwrap());
    let not_readable = second.replace(r#","default":"""#, "");
    assert!(!registry.compatible(&subject, &not_readable).await.unwrap());
    let Error::Refused { status: 409, .. } = registry.register(&subject, &not_readable).await.unwrap_err() else {
        panic!("an incompatible schema was taken")
    };
    let Error::Refused { status: 422, .. } = registry.register(&subject, "{").await.unwrap_err() else {
        panic!("a broken schema was taken")
    };
    // Confluent's registry answers 422; Apicurio 3.0.9 calls it an error of its own, 500.
    let unknown_level = registry.set_compatibility(Some(&subject), "SIDEWARD").await;
    assert!(unknown_level.is_err(), "an unknown level was taken");
    let id_2 = registry.register(&subject, &second).await.unwrap();
    let versions = registry.versions(&subject).await.unwrap();
    let parsed = |text: &str| apache_avro::Schema::parse_str(text).unwrap();
    let got: Vec<_> = versions.iter().map(|schema| (schema.id, schema.avro.clone())).collect();
    assert_eq!(got, [(id, parsed(&first)), (id_2, parsed(&second))]);

    let fresh = Registry::open(Settings {
        timeout: Duration::from_secs(20),
        ..Settings::new(url)
    })
    .unwrap();
    assert_eq!(fresh.schema(id_2).await.unwrap().avro, parsed(&second));
    let unknown = 1_999_999_999;
    assert_eq!(fresh.schema(unknown).await.unwrap_err(), Error::Unknown { id: unknown });
}
