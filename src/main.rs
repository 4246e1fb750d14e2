//! The executable: reads the command line and does what it says.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use local_api_proxy::language::either;
use local_api_proxy::settings::args::{self, Command};
use local_api_proxy::{autostart, memory, run, start};

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => start::print(either(args::HELP, args::HELP_IN_CHINESE)),
        Ok(Command::Version) => start::print(concat!("local-api-proxy ", env!("VERSION"), "\n")),
        Ok(Command::Serve(args)) => {
            memory::tune_allocator();
            match start::start(args) {
                Ok(running) => running.until_stopped(),
                Err(reason) => start::fail(&reason),
            }
        }
        Ok(Command::Run(args, tool, arguments)) => run::run(args, tool.as_deref(), &arguments),
        Ok(Command::Connect(args, tool)) => start::connect(args, tool.as_deref()),
        Ok(Command::Autostart(args, action)) => match autostart::autostart(args, action) {
            Ok(text) => start::print(&text),
            Err(reason) => start::fail(&reason),
        },
        Err(mistake) => start::misused(&either(
            format!("{mistake}. See local-api-proxy --help."),
            format!("{mistake}。请参阅 local-api-proxy --help。"),
        )),
    }
}
