//! Checks that no name that belongs to somebody else is taken for one of this machine's.

#![no_main]

use libfuzzer_sys::fuzz_target;
use local_api_proxy::client::access::{is_allowed_origin, is_own_host};
use local_api_proxy::machine::is_loopback_host;

fuzz_target!(|text: String| {
    is_own_host(&text, "localhost");
    is_allowed_origin(&text, &[]);
    for foreign in [format!("{text}.evil.example"), format!("localhost.{}.evil.example:5000", text.replace(':', ""))] {
        assert!(!is_own_host(&foreign, "localhost"), "{foreign}");
        assert!(!is_loopback_host(&foreign), "{foreign}");
        for scheme in ["http", "https"] {
            assert!(!is_allowed_origin(&format!("{scheme}://{foreign}"), &[]), "{foreign}");
        }
    }
});
