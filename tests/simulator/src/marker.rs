//! Names as the operator writes them while a credential is only staged.

/// What stands between the final name and the two halves of the mark.
const OPENING: &str = " [toolzz-operator ";

/// The name without the operator's marker `<name> [toolzz-operator <8 hex>-<8 hex>]`.
///
/// ```
/// use toolzz_simulator::final_name;
/// assert_eq!(final_name("OpenAI [toolzz-operator 0a1b2c3d-4e5f6071]"), "OpenAI");
/// assert_eq!(final_name("OpenAI [toolzz-operator x]"), "OpenAI [toolzz-operator x]");
/// ```
#[must_use]
pub fn final_name(name: &str) -> &str {
    before_marker(name).unwrap_or(name)
}

/// Whether the name carries the operator's marker.
#[must_use]
pub fn is_marked(name: &str) -> bool {
    before_marker(name).is_some()
}

fn before_marker(name: &str) -> Option<&str> {
    let (final_name, mark) = name.strip_suffix(']')?.rsplit_once(OPENING)?;
    let (resource, material) = mark.split_once('-')?;
    (is_eight_hex(resource) && is_eight_hex(material)).then_some(final_name)
}

fn is_eight_hex(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_complete_marker_is_taken_off() {
        for (name, expected) in [
            ("a [toolzz-operator 00000000-ffffffff]", "a"),
            ("a [b] [toolzz-operator 00000000-FFFFFFFF]", "a [b]"),
            (" [toolzz-operator 00000000-ffffffff]", ""),
            ("a [toolzz-operator 00000000-fffffff]", "a [toolzz-operator 00000000-fffffff]"),
            ("a [toolzz-operator 00000000-gggggggg]", "a [toolzz-operator 00000000-gggggggg]"),
            ("a [toolzz-operator 00000000-ffffffff] ", "a [toolzz-operator 00000000-ffffffff] "),
            ("a", "a"),
        ] {
            assert_eq!(final_name(name), expected);
            assert_eq!(is_marked(name), name != expected);
        }
    }
}
