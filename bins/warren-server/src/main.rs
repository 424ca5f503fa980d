//! Reads the arguments and hands over to the library.

use std::io::Write as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use warren_server::{Fault, LogFormat, Reading, Settings};

fn main() -> ExitCode {
    let settings = match Settings::read(std::env::args_os()) {
        Reading::Start(settings) => *settings,
        Reading::Print(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Reading::Usage(error) => error.exit(),
        Reading::Fault(fault) => return failed(&fault),
    };
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => failed(&fault),
    }
}

fn start(settings: Settings) -> Result<(), Fault> {
    log(&settings)?;
    // Whatever makes TLS without naming a provider gets the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Fault::new("NO_THREADS", format!("the system gives no threads: {error}"), "raise the process limit")
    })?;
    runtime.block_on(warren_server::run(settings))
}

fn log(settings: &Settings) -> Result<(), Fault> {
    let filter = EnvFilter::try_new(&settings.log)
        .map_err(|error| warren_settings::bad_log_filter(&settings.log, &error))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => {
            use std::io::IsTerminal;
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            lines.with_ansi(colour).init();
        }
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}

fn failed(fault: &Fault) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{fault}");
    ExitCode::FAILURE
}
