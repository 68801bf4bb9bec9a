use super::{Place, with_class_archive};
use crate::error::Error;
use crate::fetch;
use crate::part::Part;
use crate::supervise::Spec;
use std::collections::BTreeMap;

pub(super) fn prepare(place: &Place) -> Result<Spec, Error> {
    let dir = place.of(Part::Registry);
    let home = fetch::part_dir(&place.cache, Part::Registry);
    let mut args = vec![
        "-Xmx256m".into(),
        // A registry is asked little: the quick compiler alone halves what its start costs.
        "-XX:TieredStopAtLevel=1".into(),
        format!("-XX:ErrorFile={}", dir.join("crash.log").display()),
    ];
    args.extend(with_class_archive(&home));
    let settings = [
        ("quarkus.http.host", "127.0.0.1".into()),
        ("quarkus.http.port", place.ports.registry.to_string()),
        ("quarkus.management.host", "127.0.0.1".into()),
        ("quarkus.management.port", place.ports.registry_management.to_string()),
        ("quarkus.log.console.json", "false".into()),
        ("quarkus.http.access-log.enabled", "false".into()),
        // The same Avro text with other spaces gets the same id, as with Confluent's registry.
        ("apicurio.ccompat.use-canonical-hash", "true".into()),
        // In a file, so that a restart is an outage and not an empty registry.
        ("apicurio.storage.kind", "sql".into()),
        ("apicurio.storage.sql.kind", "h2".into()),
        (
            "apicurio.datasource.url",
            format!("jdbc:h2:file:{}/h2;DB_CLOSE_ON_EXIT=FALSE", dir.display()),
        ),
    ];
    args.extend(settings.map(|(name, value): (_, String)| format!("-D{name}={value}")));
    args.extend(["-jar".into(), "apicurio-registry-app-3.0.9-runner.jar".into()]);
    Ok(Spec {
        part: Part::Registry,
        program: fetch::java(Part::Registry)?,
        args,
        env: BTreeMap::new(),
        cwd: home,
        log: place.log(Part::Registry),
        user: None,
    })
}
