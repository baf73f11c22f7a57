//! `grafolean-plan PROTOCOL`: which jobs would a bot of this protocol run? Settings come from the environment, as for
//! all bots.

use std::process::ExitCode;

use grafolean_bots::plan::AnyProtocol;
use grafolean_std::app::{init_logs, print_plan};
use grafolean_std::driver::Config;
use grafolean_std::env::Settings;

const USAGE: &str = "\
Usage: grafolean-plan PROTOCOL

Fetches once and prints, as JSON lines, the jobs that a bot of PROTOCOL (ping, snmp, ...) would run, what was skipped
and why, schedules that can't be kept, and the load. Settings: BACKEND_URL, BOT_TOKEN (or BOT_TOKEN_FROM_FILE) and the
others of the bots, from the environment or a file .env.
";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let protocol = match (args.next(), args.next()) {
        (Some(arg), None) if arg == "--help" || arg == "-h" => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        (Some(arg), None) if !arg.starts_with('-') => arg,
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let settings = match Settings::load() {
        Ok(settings) => settings,
        Err(error) => return bad(&error),
    };
    if let Err(error) = init_logs(settings.log_filter.as_deref().or(Some("warn"))) {
        return bad(&error);
    }
    let config = match Config::from_env(&settings) {
        Ok(config) => config,
        Err(error) => return bad(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return bad(&error),
    };
    let code = runtime.block_on(print_plan("grafolean-plan", AnyProtocol { protocol }, config));
    // Not to wait for a resolver that blocks a thread of the runtime.
    runtime.shutdown_background();
    code
}

fn bad(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("grafolean-plan: {error}");
    ExitCode::from(2)
}
