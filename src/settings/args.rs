//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::prelude::*;

/// Printed by `--help`; fits one screen.
pub const HELP: &str = "\
local-api-proxy: OpenRouter's free models for every OpenAI-compatible tool on this machine

Usage: local-api-proxy [OPTIONS]

  --dir DIR      home folder: where .env, DEBUG_MODE.txt and a relative CACHE_DIR are
                 (default: the current folder if it holds a .env, else the executable's)
  --host HOST    address to listen on (default: localhost, that is 127.0.0.1 and ::1)
  --port PORT    port to listen on (default: 5000; 0: any free one)
  --offline      answer from a built-in model, without network or key, to try things out
  --help         print this
  --version      print the version and the commit that it was built from

Put your key into .env beside the executable:

  OPENROUTER_API_KEY=sk-or-v1-...          (free, from https://openrouter.ai/keys)

then point any OpenAI-compatible tool at http://localhost:5000/v1 with any API key and any model.
Settings are read again whenever .env is saved. An empty file DEBUG_MODE.txt beside it switches
debug mode on: see http://localhost:5000/debug
";

/// Flags of the command line; each wins over the same setting in `.env`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Args {
    /// `--dir`: the home folder.
    pub dir: Option<PathBuf>,
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--offline`: the same as `TEST_MODE=true`.
    pub offline: bool,
}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Serve.
    Run(Args),
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
}

/// Reads the command line, without the program's own name. An error is one sentence for the user.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut parser = lexopt::Parser::from_args(args);
    let mut parsed = Args::default();
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Long("offline") => parsed.offline = true,
            Long("dir") => parsed.dir = Some(value(&mut parser)?.into()),
            Long("host") => {
                let host = value(&mut parser)?
                    .into_string()
                    .map_err(|_| "--host needs a host name or an IP address")?;
                parsed.host = Some(host);
            }
            Long("port") => {
                let port = value(&mut parser)?;
                let port = port.to_str().and_then(|port| port.parse().ok());
                parsed.port = Some(port.ok_or("--port needs a number from 0 to 65535")?);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    Ok(Command::Run(parsed))
}

fn value(parser: &mut lexopt::Parser) -> Result<OsString, String> {
    parser.value().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Result<Command, String> {
        parse(args.iter().map(OsString::from))
    }

    #[test]
    fn both_spellings_of_a_value() {
        let expected = Args { port: Some(8080), dir: Some("my folder".into()), ..Args::default() };
        let spaced = run(&["--port", "8080", "--dir", "my folder"]);
        assert_eq!(spaced, Ok(Command::Run(expected.clone())));
        let joined = run(&["--port=8080", "--dir=my folder"]);
        assert_eq!(joined, Ok(Command::Run(expected)));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(run(&["--port", "65536"]).unwrap_err().contains("65535"));
        assert!(run(&["--prot", "1"]).unwrap_err().contains("--prot"));
        assert!(run(&["--dir"]).unwrap_err().contains("--dir"));
    }
}
