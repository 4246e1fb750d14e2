//! The executable: reads the command line, starts, waits to be stopped, ends in order.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use local_api_proxy::language::either;
use local_api_proxy::settings::args::{self, Command};
use local_api_proxy::{memory, start};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => start::print(either(args::HELP, args::HELP_IN_CHINESE)),
        Ok(Command::Version) => start::print(concat!("local-api-proxy ", env!("VERSION"), "\n")),
        Ok(Command::Run(args)) => {
            memory::settle();
            match start::start(args) {
                Ok(running) => running.until_stopped(),
                Err(reason) => start::fail(&reason),
            }
        }
        Err(mistake) => start::fail(&either(
            format!("{mistake}. See local-api-proxy --help."),
            format!("{mistake}。请参阅 local-api-proxy --help。"),
        )),
    }
}
