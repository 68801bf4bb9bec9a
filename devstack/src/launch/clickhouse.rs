//! ClickHouse: `clickhouse server` where the machine has it, else the whole of `clickhouse local` as a library, which
//! opens the same ports, keeps the same tables on disk and reads the same configuration when asked to.

use super::Place;
use crate::error::{At, Error};
use crate::fetch;
use crate::part::Part;
use crate::supervise::Spec;
use std::collections::BTreeMap;
use std::ffi::{CString, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::ExitCode;

pub(crate) const MODE: &str = "__devstack-clickhouse";

/// Bytes of the file system that ClickHouse leaves free.
pub const CLICKHOUSE_KEEPS_FREE: u64 = 64 << 20;

/// Opens the ports, then sleeps for longer than any stack runs: `clickhouse local` ends with its query.
const SERVE: &str = "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; SELECT sleepEachRow(3) FROM numbers(1000000000) \
    SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 10000000000 FORMAT Null";

pub(super) fn prepare(place: &Place) -> Result<Spec, Error> {
    let dir = place.of(Part::ClickHouse);
    let config = dir.join("config.xml");
    std::fs::write(&config, configuration(place, &dir)).at(&config)?;
    let users = dir.join("users.xml");
    std::fs::write(&users, USERS).at(&users)?;
    let config = format!("--config-file={}", config.display());
    let (program, args) = match fetch::on_path("clickhouse") {
        Some(clickhouse) => (clickhouse, vec!["server".into(), config]),
        None => {
            let library = fetch::part_dir(&place.cache, Part::ClickHouse).join("libchdb.so");
            (
                place.launcher.clone(),
                vec![MODE.into(), library.display().to_string(), config],
            )
        }
    };
    Ok(Spec {
        part: Part::ClickHouse,
        program,
        args,
        // The server's time zone is that of its process; production runs in UTC.
        env: BTreeMap::from([("TZ".into(), "UTC".into())]),
        cwd: dir,
        log: place.log(Part::ClickHouse),
        user: None,
    })
}

/// Merges get what inserts leave of the few cores that broker, server and workers share here: one at a time, at the lowest
/// priority (`docs/decisions/0010-tables-of-small-parts.md`). The log of parts, which a server from a package keeps, too, tells
/// the latency sampler when an event became visible.
///
/// Merged parts stay for as long as on a server; the library's own default is to remove them at once, hundreds of files at a
/// time (`docs/decisions/0013-files-that-were-removed.md`).
///
/// Inserts and merges are refused while less than [`CLICKHOUSE_KEEPS_FREE`] is free: the library goes on after a write that failed, where a
/// server throws, and so makes parts of truncated files on a full disk (`nextImpl` in
/// <https://github.com/chdb-io/chdb/blob/main/src/IO/WriteBufferFromFileDescriptor.cpp>, read and tried with 26.7).
fn configuration(place: &Place, dir: &Path) -> String {
    format!(
        "\
<clickhouse>
  <logger>
    <level>information</level><log>{dir}/server.log</log><errorlog>{dir}/server.err.log</errorlog>
    <size>100M</size><count>2</count><console>0</console>
  </logger>
  <path>{dir}/data/</path>
  <tmp_path>{dir}/data/tmp/</tmp_path>
  <user_files_path>{dir}/data/user_files/</user_files_path>
  <http_port>{http}</http_port>
  <tcp_port>{native}</tcp_port>
  <listen_host>127.0.0.1</listen_host>
  <timezone>UTC</timezone>
  <max_server_memory_usage>4294967296</max_server_memory_usage>
  <mark_cache_size>268435456</mark_cache_size>
  <index_mark_cache_size>67108864</index_mark_cache_size>
  <primary_index_cache_size>268435456</primary_index_cache_size>
  <background_pool_size>1</background_pool_size>
  <os_threads_nice_value_merge_mutate>19</os_threads_nice_value_merge_mutate>
  <storage_configuration><disks><default><keep_free_space_bytes>{CLICKHOUSE_KEEPS_FREE}</keep_free_space_bytes></default></disks></storage_configuration>
  <merge_tree><old_parts_lifetime>480</old_parts_lifetime></merge_tree>
  <part_log>
    <database>system</database><table>part_log</table>
    <ttl>event_date + INTERVAL 1 DAY</ttl><flush_interval_milliseconds>7500</flush_interval_milliseconds>
  </part_log>
  <user_directories><users_xml><path>{dir}/users.xml</path></users_xml></user_directories>
</clickhouse>
",
        dir = dir.display(),
        http = place.ports.clickhouse,
        native = place.ports.clickhouse_native,
    )
}

const USERS: &str = "\
<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users>
    <default>
      <password/><networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile><quota>default</quota><access_management>1</access_management>
    </default>
  </users>
</clickhouse>
";

/// The main of the process that holds the library: `LIBRARY ARGS...`. Returns when the library's main does.
pub(crate) fn main(library: &Path, args: Vec<OsString>) -> ExitCode {
    // The library reads the level from here only; without it every query is traced.
    let own = ["clickhouse", "--log-level=information"].map(OsString::from);
    let serve = ["--query", SERVE].map(OsString::from);
    let words: Result<Vec<CString>, _> = own
        .into_iter()
        .chain(args)
        .chain(serve)
        .map(|word| CString::new(word.into_vec()))
        .collect();
    let Ok(words) = words else { return ExitCode::FAILURE };
    let mut pointers: Vec<*mut c_char> = words.iter().map(|word| word.as_ptr().cast_mut()).collect();
    let Ok(count) = c_int::try_from(pointers.len()) else {
        return ExitCode::FAILURE;
    };
    pointers.push(std::ptr::null_mut());
    // SAFETY: loading runs the library's initialisers, which is what this process exists for; nothing else runs in it.
    // The symbol is a C `main`: it gets a count and that many strings, followed by null, that outlive the call.
    unsafe {
        let loaded = match libloading::Library::new(library) {
            Ok(loaded) => loaded,
            Err(error) => return failed(library, &error),
        };
        let symbol =
            loaded.get::<unsafe extern "C" fn(c_int, *mut *mut c_char) -> *mut c_void>(b"chdb_query_cmdline\0");
        match symbol {
            Ok(run) => run(count, pointers.as_mut_ptr()),
            Err(error) => return failed(library, &error),
        };
    }
    ExitCode::SUCCESS
}

fn failed(library: &Path, error: &libloading::Error) -> ExitCode {
    eprintln!("{}: {error}", library.display());
    ExitCode::FAILURE
}
