//! Reads the arguments and hands over to the library.

use std::io::Write as _;
use std::process::ExitCode;
use warren_server::{Fault, Reading, Settings};

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
    warren_settings::log(&settings.log, settings.log_format)?;
    io_adapters::relay_stream::tls::install();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Fault::new("NO_THREADS", format!("the system gives no threads: {error}"), "raise the process limit")
    })?;
    runtime.block_on(warren_server::run(settings))
}

fn failed(fault: &Fault) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{fault}");
    ExitCode::FAILURE
}
