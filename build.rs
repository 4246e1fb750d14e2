//! Sets the commit that `--version` names, and the icon and version that Windows shows in the executable's properties;
//! prepares the panel's files as they are served.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    strip_page();
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/logs/HEAD");
    println!("cargo::rerun-if-changed=static/icon.ico");
    // A source archive has no commit to name.
    let git = Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    let commit =
        git.ok().filter(|git| git.status.success()).and_then(|git| String::from_utf8(git.stdout).ok());
    let version = env!("CARGO_PKG_VERSION");
    let version = match commit.as_deref().map(str::trim) {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    };
    println!("cargo::rustc-env=VERSION={version}");

    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "windows") {
        let mut resource = winresource::WindowsResource::new();
        resource.set_icon("static/icon.ico");
        resource.set("ProductName", "local-api-proxy");
        resource.set("FileDescription", "OpenRouter's free models at http://localhost:5000/v1");
        if let Err(error) = resource.compile() {
            println!("cargo::warning=the executable gets no icon: {error}");
        }
    }
}

/// Strips comments and blanks, which no browser reads, from the panel's files: they are a quarter of them. No name is
/// changed.
fn strip_page() {
    println!("cargo::rerun-if-changed=static");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    for file in fs::read_dir("static").expect("static is a folder").flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let strip = match name.rsplit('.').next() {
            Some("js") => script,
            Some("css") => style,
            Some("html") => markup,
            _ => continue,
        };
        let text = fs::read_to_string(file.path()).expect("static holds text");
        fs::write(out.join(name), strip(&text)).expect("OUT_DIR can be written");
    }
}

/// Strips a page: values need quotes only where they hold more than letters and digits, and heads of columns no end.
fn markup(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let text = lines.map(|line| format!("{line}\n")).collect::<String>();
    let text = text.replace(">\n<", "><").replace("</th>", "");
    let mut parts = text.split("=\"");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |page, part| match part.split_once('"') {
        Some(("", behind)) => page + behind,
        Some((value, behind)) if value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
            format!("{page}={value}{behind}")
        }
        _ => format!("{page}=\"{part}"),
    })
}

/// Strips a style sheet, in which every comment must be a line of its own.
fn style(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("/*"));
    let signs = [(" {", "{"), ("{ ", "{"), ("; ", ";"), (", ", ","), (": ", ":"), (" > ", ">")];
    signs.iter().fold(lines.collect::<String>(), |css, (from, to)| css.replace(from, to))
}

/// Strips a script. Text in quotes, templates and regular expressions is kept, and so is the end of a line where it may
/// end a statement.
fn script(text: &str) -> String {
    let text = text.chars().collect::<Vec<_>>();
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    let mut out = String::with_capacity(text.len());
    // For each `${` that is open, the number of braces that are open in it.
    let mut open = Vec::<usize>::new();
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        let last = out.chars().next_back().unwrap_or(';');
        let is_value = is_word(last) || matches!(last, ')' | ']' | '}' | '"' | '\'' | '`');
        let (blank, line_ends) = blank_end(&text, at);
        if blank > at {
            let next = text.get(blank).copied().unwrap_or(';');
            let goes_on = "{([,;=>&|?:".contains(last) || "})].?:&|,;".contains(next);
            if line_ends && !goes_on {
                out.push('\n');
            } else if is_word(last) && is_word(next) || last == next && matches!(next, '+' | '-') {
                out.push(' ');
            }
            at = blank;
            continue;
        }
        if c == '}' && last == ';' && open.last() != Some(&0) {
            out.pop();
        }
        let mut end = at + 1;
        match c {
            '"' | '\'' | '`' => end = literal_end(&text, at, c),
            '/' if !is_value || out.ends_with("return") => end = literal_end(&text, at, c),
            '}' if open.last() == Some(&0) => {
                open.pop();
                end = literal_end(&text, at, '`');
            }
            '{' => open.iter_mut().last().into_iter().for_each(|braces| *braces += 1),
            '}' => open.iter_mut().last().into_iter().for_each(|braces| *braces -= 1),
            _ => {}
        }
        out.extend(&text[at..end]);
        if end > at + 1 && text[..end].ends_with(&['$', '{']) {
            open.push(0);
        }
        at = end;
    }
    out
}

/// Returns where the blanks and comments that begin here end, and whether a line ends in them.
fn blank_end(text: &[char], begin: usize) -> (usize, bool) {
    let (mut at, mut line_ends) = (begin, false);
    loop {
        let to = |end: &[char]| {
            let length = text[at..].windows(end.len()).position(|window| window == end);
            length.map_or(text.len(), |length| at + length)
        };
        match text[at..] {
            ['/', '/', ..] => at = to(&['\n']),
            ['/', '*', ..] => at = to(&['*', '/']) + 2,
            [c, ..] if c.is_whitespace() => {
                line_ends |= c == '\n';
                at += 1;
            }
            _ => return (at, line_ends),
        }
    }
}

/// Returns the position behind the sign that ends a literal; in a template, also behind a `${`.
fn literal_end(text: &[char], begin: usize, sign: char) -> usize {
    let (mut at, mut in_class) = (begin + 1, false);
    loop {
        match text[at..] {
            ['\\', ..] => at += 1,
            ['$', '{', ..] if sign == '`' => return at + 2,
            ['[', ..] if sign == '/' => in_class = true,
            [']', ..] if sign == '/' => in_class = false,
            [c, ..] if c == sign && !in_class => return at + 1,
            [] => panic!("a literal of {sign} has no end"),
            _ => {}
        }
        at += 1;
    }
}
