//! Checks that, whatever is in the file, each line is a setting, nothing, or a mistake with its number.

#![no_main]

use libfuzzer_sys::fuzz_target;
use local_api_proxy::settings::env_file;

fuzz_target!(|bytes: &[u8]| {
    let text = env_file::decode(bytes);
    let env_file::Parsed { settings, bad, further_bad } = env_file::parse(&text);
    let lines = text.lines().flat_map(|line| line.split('\r')).count();
    assert!(settings.len() + bad.len() + further_bad <= lines);
    assert!(bad.iter().all(|line| (1..=text.lines().count()).contains(&line.number)));
    // A good line is still understood, whatever comes before it.
    let settings = env_file::parse(&format!("{text}\nOPENROUTER_API_KEY=sk-or-v1-x")).settings;
    assert_eq!(settings.last().map(|(_, value)| value.as_str()), Some("sk-or-v1-x"));
});
