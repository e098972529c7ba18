//! The arguments of `artillery run` that change which script runs.

/// Whether arguments of `artillery run` extend or select parts of the script, so that the script
/// that runs differs from the one the operator has read.
///
/// Source: Artillery, `lib/cli/common-flags.ts` and `lib/cmds/run.ts`; `@oclif/core`, `lib/parser/parse.js`.
#[must_use]
pub fn args_override_script<'a>(arguments: impl IntoIterator<Item = &'a String>) -> bool {
    let mut is_value = false;
    arguments.into_iter().any(|argument| {
        if std::mem::take(&mut is_value) {
            return false;
        }
        if let Some(option) = argument.strip_prefix("--") {
            let (name, has_value) = option
                .split_once('=')
                .map_or((option, false), |(name, _)| (name, true));
            is_value = !has_value && !["", "insecure", "quiet", "record"].contains(&name);
            return ["config", "environment", "input", "overrides", "solo"].contains(&name);
        }
        let Some(short) = argument.strip_prefix('-') else {
            return true;
        };
        // Flags without a value can be combined: `-kq`.
        let short = short.trim_start_matches(['k', 'q']);
        is_value = short.len() == 1;
        short.starts_with(['c', 'e', 'i', 's'])
    })
}
