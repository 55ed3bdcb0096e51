//! Every rule of a scenario at its edge: the last value that is taken, the first that is not, and what is said of it.

use super::{MAX_CPUS, MAX_MMS, Scenario};

/// A scenario of four CPUs with these fields and actors.
fn parsed(fields: &str, actors: &str) -> Result<Scenario, String> {
    let mut all = vec![
        ("name", "\"edge\"".to_owned()),
        ("duration_ps", "1000".to_owned()),
        ("cpus", "4".to_owned()),
        ("isolated", "[]".to_owned()),
    ];
    let given: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&format!("{{{fields}}}")).unwrap_or_else(|e| panic!("{e}: {fields}"));
    all.retain(|(name, _)| !given.contains_key(*name));
    let mut text: Vec<String> = all.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    text.extend(given.iter().map(|(name, value)| format!("\"{name}\": {value}")));
    text.push(format!("\"actors\": [{actors}]"));
    Scenario::parse(&format!("{{{}}}", text.join(", "))).map_err(|e| e.to_string())
}

fn actor(on: &str, rest: &str) -> String {
    format!(r#"{{"name": "a", "on": {on}, {rest}}}"#)
}

#[test]
fn fields_at_their_edges() {
    let most = 1u64 << 62;
    let rows: [(&str, String, String, String); 11] = [
        ("cpus", MAX_CPUS.to_string(), (MAX_CPUS + 1).to_string(), "cpus must be 1 to 4096: got 4097".into()),
        ("cpus", "1".into(), "0".into(), "cpus must be 1 to 4096: got 0".into()),
        (
            "duration_ps",
            "1".into(),
            "0".into(),
            "duration must be above 0 and at most 53 days: got 0 ps".into(),
        ),
        (
            "duration_ps",
            most.to_string(),
            (most + 1).to_string(),
            format!("duration must be above 0 and at most 53 days: got {} ps", most + 1),
        ),
        ("sockets", "4".into(), "5".into(), "sockets must be 1 to the number of CPUs: got 5".into()),
        ("sockets", "1".into(), "0".into(), "sockets must be 1 to the number of CPUs: got 0".into()),
        (
            "isolated",
            "[3]".into(),
            "[4]".into(),
            "isolated CPU 4 does not exist: there are CPUs 0 to 3".into(),
        ),
        (
            "isolated",
            "[1, 2]".into(),
            "[1, 9, 7]".into(),
            "isolated CPU 9 does not exist: there are CPUs 0 to 3".into(),
        ),
        (
            "isolated",
            "[1]".into(),
            "[1, 0]".into(),
            "CPU 0 cannot be isolated: the boot CPU keeps the timekeeping duty (nohz_full=)".into(),
        ),
        (
            "flush_mask",
            "[0, 3]".into(),
            "[0, 4]".into(),
            "flush_mask: CPU 4 does not exist: there are CPUs 0 to 3".into(),
        ),
        (
            "flush_mask",
            "null".into(),
            "[65535]".into(),
            "flush_mask: CPU 65535 does not exist: there are CPUs 0 to 3".into(),
        ),
    ];
    for (field, good, bad, said) in rows {
        let read = parsed(&format!("\"{field}\": {good}"), "");
        assert!(read.is_ok(), "{field} {good}: {read:?}");
        let told = parsed(&format!("\"{field}\": {bad}"), "").unwrap_err();
        assert_eq!(told, format!("scenario \"edge\": {said}"), "{field} {bad}");
    }
}

/// What an actor is with the last value that is taken and the first that is not.
const GAP: &str = r#""gap": {"mean_ps": 1000}"#;

#[test]
fn actors_at_their_edges() {
    let tasks = |more: &str| format!(r#""kind": "tasks", {GAP}, {more}"#);
    let sleep = r#""steps": [{"do": "sleep"}]"#;
    let chain = |steps: &str| format!(r#""kind": "chain", {GAP}, "steps": [{steps}]"#);
    let purge = |more: &str| chain(&format!(r#"{{"program": "purge", "pages": 0, "cause": "purge"{more}}}"#));
    let vfree = |more: &str| format!(r#""kind": "vfree", {GAP}, {more}"#);
    let calls = |gap: u64, base: u64| {
        format!(
            r#""kind": "syscalls", "gap": {{"mean_ps": {gap}}}, "base_ps": {base}, "kernel_pages": 0, "user_pages": 0"#
        )
    };
    let rows: Vec<(String, String, &str)> = vec![
        (
            purge(r#", "per_mille": 1000"#),
            purge(r#", "per_mille": 1001"#),
            "a chance per mille is at most 1000: got 1001",
        ),
        (purge(""), chain(""), "there is no step"),
        (
            purge(""),
            chain(r#"{"program": "interrupt", "pages": 0, "cause": "purge"}"#),
            "\"interrupt\" is no kernel work that a chain can run",
        ),
        (
            tasks(r#""steps": [{"do": "exit", "spread": 1000}]"#),
            tasks(r#""steps": [{"do": "exit", "spread": 1001}]"#),
            "a chance per mille is at most 1000: got 1001",
        ),
        (
            tasks(r#""steps": [{"do": "sleep", "per_mille": 1000}]"#),
            tasks(r#""steps": [{"do": "sleep"}, {"do": "fork", "per_mille": 2000}]"#),
            "a chance per mille is at most 1000: got 2000",
        ),
        (
            tasks(&format!(r#""processes": 1, {sleep}"#)),
            tasks(&format!(r#""processes": 0, {sleep}"#)),
            "processes must be at least 1: got 0",
        ),
        (
            tasks(&format!(r#""shared": true, "processes": 1, {sleep}"#)),
            tasks(&format!(r#""shared": true, "processes": 2, {sleep}"#)),
            "threads share one process: got processes 2",
        ),
        (
            tasks(&format!(r#""shared": true, "also_on": "all", {sleep}"#)),
            tasks(&format!(r#""also_on": "all", {sleep}"#)),
            "also_on adds threads of a shared process",
        ),
        (
            tasks(r#""steps": [{"do": "exec"}]"#),
            tasks(r#""shared": true, "steps": [{"do": "exec"}]"#),
            "exec ends every other thread of a shared process",
        ),
        (
            tasks(r#""steps": [{"do": "migrate"}]"#),
            tasks(r#""shared": true, "steps": [{"do": "migrate"}]"#),
            "a shared process has a thread on each CPU already",
        ),
        (
            tasks(&format!(r#""shared": true, "also_on": {{"cpus": [3]}}, {sleep}"#)),
            tasks(&format!(r#""shared": true, "also_on": {{"cpus": [3, 4]}}, {sleep}"#)),
            "CPU 4 does not exist: there are CPUs 0 to 3",
        ),
        (
            tasks(&format!(r#""processes": {}, {sleep}"#, MAX_MMS / 4)),
            tasks(&format!(r#""processes": {}, {sleep}"#, MAX_MMS / 4 + 1)),
            "at most 50000 processes in all: got 50004",
        ),
        (vfree(r#""pages": 1"#), vfree(r#""pages": 0"#), "pages must be at least 1: got 0"),
        (
            vfree(r#""pages": 1, "then": [1], "apart_ps": 1"#),
            vfree(r#""pages": 1, "then": [2, 0], "apart_ps": 1"#),
            "pages must be at least 1: got 0",
        ),
        (
            vfree(r#""pages": 1, "then": [], "apart_ps": 0"#),
            vfree(r#""pages": 1, "then": [1], "apart_ps": 0"#),
            "the time between two frees must be above 0",
        ),
        (
            vfree(r#""pages": 1, "roams_ps": 1"#),
            vfree(r#""pages": 1, "roams_ps": 0"#),
            "the time between two ticks must be above 0",
        ),
        (
            format!(r#""kind": "forks", {GAP}, "batch": 1"#),
            format!(r#""kind": "forks", {GAP}, "batch": 0"#),
            "batch must be at least 1: got 0",
        ),
        (calls(1, 0), calls(0, 0), "a system call must take time"),
        (calls(0, 1), calls(0, 0), "a system call must take time"),
    ];
    for (good, bad, said) in rows {
        let read = parsed("", &actor("\"all\"", &good));
        assert!(read.is_ok(), "{good}: {read:?}");
        let told = parsed("", &actor("\"all\"", &bad)).unwrap_err();
        assert_eq!(told, format!("scenario \"edge\": actor \"a\": {said}"), "{bad}");
    }
}

#[test]
fn a_gap_is_at_least_a_nanosecond_but_of_system_calls() {
    let rests = [
        r#""kind": "interrupts", "body_ps": 0, "cause": "tick""#,
        r#""kind": "nmis", "body_ps": 0"#,
        r#""kind": "faults", "body_ps": 0, "by": "exception""#,
        r#""kind": "forks", "batch": 1"#,
        r#""kind": "vfree", "pages": 1"#,
        r#""kind": "tasks", "steps": [{"do": "sleep"}]"#,
        r#""kind": "chain", "steps": [{"program": "purge", "pages": 0, "cause": "purge"}]"#,
        r#""kind": "stream", "phases": [{"pattern": {"sequential": {"pages": 1}}}]"#,
    ];
    let spin = actor("\"all\"", r#""kind": "spin""#);
    for rest in rests {
        let with = |gap: u64| {
            let one = actor("{\"cpus\": [3]}", &format!(r#"{rest}, "gap": {{"mean_ps": {gap}}}"#));
            parsed("", &format!("{spin}, {one}"))
        };
        assert!(with(1000).is_ok(), "{rest}: {:?}", with(1000));
        let said = "its gap must be at least 1000 ps, a rate of 1e9 per second: got 999 ps";
        assert_eq!(with(999).unwrap_err(), format!("scenario \"edge\": actor \"a\": {said}"), "{rest}");
    }
}

#[test]
fn where_actors_may_be() {
    let spin = |on: &str| actor(on, r#""kind": "spin""#);
    let idle = |on: &str| actor(on, r#""kind": "idle""#);
    let faults = |by: &str| {
        actor(r#"{"cpus": [2]}"#, &format!(r#""kind": "faults", {GAP}, "body_ps": 1, "by": "{by}""#))
    };
    let stream = actor(
        r#"{"cpus": [2]}"#,
        &format!(r#""kind": "stream", {GAP}, "phases": [{{"pattern": {{"chase": {{"pages": 2}}}}}}]"#),
    );
    let all = "\"all\"";
    let rows: [(String, Result<(), &str>); 12] = [
        (spin(r#"{"cpus": [3]}"#), Ok(())),
        (spin(r#"{"cpus": [3, 4]}"#), Err("actor \"a\": CPU 4 does not exist: there are CPUs 0 to 3")),
        (format!("{}, {}", spin("{\"cpus\": [1]}"), idle("{\"cpus\": [2]}")), Ok(())),
        (
            format!("{}, {}", spin(all), idle("{\"cpus\": [2]}")),
            Err("actors \"a\" and \"a\" both are the foreground of CPU 2"),
        ),
        (format!("{}, {stream}", spin(all)), Ok(())),
        (stream.clone(), Err("actor \"a\": CPU 2 has no user mode: spin or syscalls must run there")),
        (
            format!("{}, {stream}", idle(all)),
            Err("actor \"a\": CPU 2 has no user mode: spin or syscalls must run there"),
        ),
        (
            format!("{}, {stream}, {stream}", spin(all)),
            Err("actors \"a\" and \"a\" on CPU 2: one stream per CPU, of several phases if need be"),
        ),
        (format!("{}, {}", spin(all), faults("exception_bad_iret")), Ok(())),
        (
            format!("{}, {}", spin(all), faults("syscall")),
            Err("actor \"a\": a fault enters as an exception, not by syscall"),
        ),
        (
            format!("{}, {}", spin(all), faults("sysenter_compat")),
            Err("actor \"a\": a fault enters as an exception, not by sysenter_compat"),
        ),
        (faults("exception"), Err("actor \"a\": CPU 2 has no user mode: spin or syscalls must run there")),
    ];
    for (actors, said) in rows {
        let read = parsed("\"isolated\": [1]", &actors).map(|_| ());
        assert_eq!(read, said.map_err(|s| format!("scenario \"edge\": {s}")), "{actors}");
    }
}

#[test]
fn threads_of_a_process_are_one_of_the_most_that_there_may_be() {
    let tasks = |more: &str| {
        actor("\"all\"", &format!(r#""kind": "tasks", {GAP}, {more}, "steps": [{{"do": "sleep"}}]"#))
    };
    let (most, shared) = (tasks(&format!(r#""processes": {}"#, MAX_MMS / 4)), tasks(r#""shared": true"#));
    let fewer = tasks(&format!(r#""processes": {}"#, MAX_MMS / 4 - 1));
    assert!(parsed("", &format!("{fewer}, {shared}, {shared}, {shared}, {shared}")).is_ok());
    let told = parsed("", &format!("{most}, {shared}")).unwrap_err();
    assert_eq!(told, "scenario \"edge\": actor \"a\": at most 50000 processes in all: got 50001");
}

#[test]
fn an_actor_that_cannot_be_read_is_named_and_what_is_left_out_has_its_value() {
    let told = parsed("", r#"{"name": "b", "on": "all", "kind": "spin", "user_page": 1}"#).unwrap_err();
    assert!(told.starts_with("scenario \"edge\": actor \"b\": unknown field `user_page`"), "{told}");
    let told = parsed("", r#"{"on": "all"}"#).unwrap_err();
    assert!(told.starts_with("scenario \"edge\": actor \"without a name\": "), "{told}");
    let read = parsed("", "").unwrap();
    assert_eq!((read.sockets, read.rcu_ps, read.work_delay_ps), (1, 20_000_000_000, 20_000_000));
    assert_eq!((read.extra_ipi_ps, read.lazy_max_pages, read.flush_mask), (0, None, None));
}
