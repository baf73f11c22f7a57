//! The dry runs, as programs, against a stand-in backend that serves an account of 300 devices.

// Helpers outside of test functions count as product code for this lint.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use grafolean_stand_in::{Account, Bot, Config, ListKind, StandIn, StandInThread, Token};
use serde_json::{Value, json};

const TOKEN: &str = "55555555-5555-4555-8555-555555555555";
const ACCOUNT: i32 = 129_953_453;
const USER: i32 = 1_408_704_727;

fn backend(lists: [(ListKind, String); 3]) -> StandInThread {
    let stand_in = StandIn::builder().config(Config::default()).spawn_thread().unwrap();
    stand_in.change(|b| {
        b.set_account(Account { id: ACCOUNT, name: "Large".to_owned() }).unwrap();
        let mut bot = Bot::systemwide(USER, "my", "myprotocol");
        bot.token = Token::new(TOKEN);
        b.set_bot(bot).unwrap();
        for (kind, body) in lists {
            b.set_raw_list(ACCOUNT, kind, Some(body)).unwrap();
        }
    });
    stand_in
}

/// 300 devices with five sensors each; the first sensor of 117 of them has no interval.
fn generated() -> [(ListKind, String); 3] {
    let entities: Vec<Value> = (0..300u32)
        .map(|n| {
            let sensors: Vec<Value> = (0..5)
                .map(|k| {
                    // Sensors up to 5 have no default interval.
                    let null = k == 0 && n < 117;
                    let id = if null { 1 + n % 5 } else { 6 + (n * 5 + k) % 40 };
                    let interval = if null || n % 2 == 0 { Value::Null } else { json!(15 * (1 + k)) };
                    json!({"sensor": id, "interval": interval})
                })
                .collect();
            json!({
                "id": 1000 + n, "name": format!("Router {n} (Črnuče)"), "entity_type": "device", "parent": null,
                "details": {"ipv4": format!("127.0.0.{}", n % 250), "": [1e300, -0.0, "\u{0}"], "n": {"deep": [[[]]]}},
                "protocols": {"myprotocol": {"credential": 1 + n % 11, "sensors": sensors, "bot": USER}},
            })
        })
        .collect();
    let credentials: Vec<Value> = (1..=11)
        .map(|id| json!({"id": id, "name": "c", "protocol": "myprotocol", "details": {"password": "pa\"ss\\"}}))
        .collect();
    let sensors: Vec<Value> = (1..=45)
        .map(|id| {
            let interval = if id <= 5 { Value::Null } else { json!(60) };
            json!({"id": id, "name": "s", "protocol": "myprotocol", "default_interval": interval, "details": {"unit": "B/s"}})
        })
        .collect();
    [
        (ListKind::Entities, json!({"list": entities}).to_string()),
        (ListKind::Credentials, json!({"list": credentials}).to_string()),
        (ListKind::Sensors, json!({"list": sensors}).to_string()),
    ]
}

fn plan(stand_in: &StandIn, program: &str, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .env_clear()
        .env("BACKEND_URL", stand_in.base_url())
        .env("BOT_TOKEN", TOKEN)
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_large_plan(stand_in: &StandIn) {
    let output = plan(stand_in, env!("CARGO_BIN_EXE_grafolean-plan"), &["myprotocol"]);
    let lines = lines(&output);
    let jobs: Vec<&Value> = lines.iter().filter(|l| l.get("intervals").is_some()).collect();
    assert_eq!(jobs.len(), 300);
    let sensors = || jobs.iter().flat_map(|j| j["sensors"].as_array().unwrap());
    assert_eq!(sensors().filter(|s| s["interval"].is_number()).count(), 1383);
    assert_eq!(sensors().filter(|s| s["interval"].is_null()).count(), 117);
    let load = &lines.last().unwrap()["load"];
    assert_eq!((&load["jobs"], &load["requests"]), (&json!(300), &json!(5)));
    assert!(load["runs_per_second"].as_f64().unwrap() > 0.0);
    for job in &jobs {
        let longest = job["intervals"].as_array().unwrap().last().unwrap().as_u64().unwrap();
        assert!(job["phase"].as_u64().unwrap() < longest);
        assert_eq!(job["key"].as_str().unwrap(), job["entity_id"].to_string());
        assert_eq!(job["account_id"], ACCOUNT);
    }
    let requests = stand_in.requests();
    let paths: Vec<&str> = requests.iter().map(|r| r.path.split('?').next().unwrap()).collect();
    let of = |list: &str| format!("/api/accounts/{ACCOUNT}/{list}/");
    assert_eq!(
        paths,
        ["/api/profile/", "/api/accounts/", &of("entities"), &of("credentials"), &of("sensors")]
    );
    assert!(!String::from_utf8_lossy(&output.stderr).contains(TOKEN));
}

#[test]
fn a_large_account_is_planned_with_four_requests_after_the_profile() {
    assert_large_plan(&backend(generated()));
}

#[test]
fn the_recorded_large_account_is_planned_if_it_is_at_hand() {
    let Ok(folder) = std::env::var("GRAFOLEAN_RECORDS") else {
        println!("GRAFOLEAN_RECORDS does not name the folder of the recorded bodies: not looked at");
        return;
    };
    let read = |name: &str| {
        std::fs::read_to_string(Path::new(&folder).join("grafolean-api/large-account").join(name)).unwrap()
    };
    let stand_in = backend([
        (ListKind::Entities, read("entities.json")),
        (ListKind::Credentials, read("credentials.json")),
        (ListKind::Sensors, read("sensors.json")),
    ]);
    assert_large_plan(&stand_in);
}

#[test]
fn an_unknown_protocol_has_no_jobs_and_is_no_fault() {
    let stand_in = backend(generated());
    let lines = lines(&plan(&stand_in, env!("CARGO_BIN_EXE_grafolean-plan"), &["nosuch"]));
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["load"]["jobs"], &lines[0]["load"]["faults"]), (&json!(0), &json!(0)));
}

#[test]
fn a_plan_without_backend_or_with_a_bad_token_says_what_to_check() {
    let stand_in = backend(generated());
    stand_in.change(|b| b.remove_bot(USER)).unwrap();
    let program = env!("CARGO_BIN_EXE_grafolean-plan");
    let denied = plan(&stand_in, program, &["myprotocol"]);
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert_eq!(denied.status.code(), Some(1));
    assert!(said.contains("401") && said.contains("token is right") && !said.contains(TOKEN), "{said}");
    stand_in.shutdown();
    let away = plan(&stand_in, program, &["myprotocol"]);
    let said = String::from_utf8_lossy(&away.stderr).into_owned();
    assert_eq!(away.status.code(), Some(1));
    assert!(said.contains("no connection to the backend") && !said.contains(TOKEN), "{said}");
    // Which backend, and why.
    let port = stand_in.address().port().to_string();
    assert!(said.contains(&port) && said.contains("refused"), "{said}");
    let no_settings = Command::new(program)
        .arg("myprotocol")
        .env_clear()
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap();
    assert_eq!(no_settings.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&no_settings.stderr).contains("BOT_TOKEN"));
}

#[test]
fn the_ping_bots_own_dry_run_names_what_it_refuses_and_what_it_can_not_keep() {
    let entity = |id: u32, details: Value, interval: i32| {
        json!({"id": id, "name": "e", "entity_type": "device", "parent": null, "details": details,
               "protocols": {"ping": {"credential": 1, "sensors": [{"sensor": 2, "interval": interval}], "bot": USER}}})
    };
    let entities = [
        entity(11, json!({"ipv4": "127.0.0.1"}), 60),
        entity(12, json!({"ipv4": "not an address!"}), 60),
        entity(13, json!({"ipv4": "127.0.0.1"}), -1),
        entity(14, json!({"ipv4": "127.0.0.1"}), 5),
    ];
    let details = json!({"timeout": "2.0", "retry": "1", "n_packets": 5, "sleep_packets": 1.0});
    let credentials = [json!({"id": 1, "name": "c", "protocol": "ping", "details": details})];
    let sensors =
        [json!({"id": 2, "name": "s", "protocol": "ping", "default_interval": null, "details": {}})];
    let stand_in = backend([
        (ListKind::Entities, json!({"list": entities}).to_string()),
        (ListKind::Credentials, json!({"list": credentials}).to_string()),
        (ListKind::Sensors, json!({"list": sensors}).to_string()),
    ]);
    let output = plan(&stand_in, env!("CARGO_BIN_EXE_grafolean-ping-bot"), &["--plan"]);
    let lines = lines(&output);
    let keys: Vec<&str> = lines.iter().filter_map(|l| l["key"].as_str()).collect();
    assert_eq!(keys, ["11", "14"]);
    let skipped =
        |entity: u32| lines.iter().filter(move |l| l["why"].is_string() && l["entity_id"] == entity);
    assert_eq!(skipped(12).count(), 1);
    assert!(skipped(13).any(|l| l["sensor_id"] == 2 && l["why"].as_str().unwrap().contains("-1")));
    assert!(skipped(14).any(|l| l["cannot_keep"] == "14" && l["takes_up_to_s"] == 30.0), "{lines:?}");
}

#[test]
fn the_host_bots_help_names_its_own_settings_with_what_counts_without_them() {
    let output = Command::new(env!("CARGO_BIN_EXE_grafolean-host-bot")).arg("--help").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let line = |name: &str| said.lines().find(|l| l.trim_start().starts_with(name)).unwrap_or_default();
    assert!(line("HOST_NAME").contains("(this machine's)"), "{said}");
    assert!(line("HOST_INTERVAL").contains("(60)"), "{said}");
}
