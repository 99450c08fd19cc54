//! What a text looks like to a reader, so that a forged mark is known in any dress (A8).

use icu_normalizer::DecomposingNormalizerBorrowed;

/// A text without what nobody sees (white space, format and control characters, combining marks), in lower case,
/// compatibility forms resolved, the commonest look-alikes of Latin letters and brackets replaced. Each character comes with
/// the index of the one it stems from.
pub(super) fn with_origins(text: &str) -> Vec<(char, usize)> {
    let normalizer = DecomposingNormalizerBorrowed::new_nfkd();
    let mut out = Vec::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        if c.is_ascii() {
            if c.is_ascii_graphic() {
                out.push((c.to_ascii_lowercase(), at));
            }
            continue;
        }
        let plain = normalizer.normalize_iter(std::iter::once(c));
        out.extend(plain.filter(|c| !is_unseen(*c)).flat_map(char::to_lowercase).map(|c| (look(c), at)));
    }
    out
}

/// The characters of [`with_origins`] alone.
pub(super) fn of(text: &str) -> String {
    with_origins(text).into_iter().map(|(c, _)| c).collect()
}

fn is_unseen(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFD}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
        || matches!(c, '\u{300}'..='\u{36F}' | '\u{483}'..='\u{489}' | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}' | '\u{20D0}'..='\u{20FF}' | '\u{FE20}'..='\u{FE2F}')
}

/// Look-alikes that compatibility forms do not cover.
fn look(c: char) -> char {
    match c {
        'а' | 'ɑ' | 'α' => 'a',
        'с' | 'ϲ' => 'c',
        'ԁ' | 'ɗ' => 'd',
        'е' | 'ҽ' => 'e',
        'ɡ' | 'ց' => 'g',
        'і' | 'ı' | 'ι' | 'ɩ' => 'i',
        'ј' => 'j',
        'ո' | 'п' => 'n',
        'о' | 'ο' | 'օ' => 'o',
        'р' | 'ρ' => 'p',
        'ѕ' | 'ꜱ' => 's',
        'т' | 'τ' => 't',
        'υ' | 'ս' => 'u',
        'ѵ' | 'ν' => 'v',
        'ѡ' | 'ԝ' => 'w',
        'х' | 'χ' => 'x',
        'у' | 'ү' => 'y',
        '【' | '〔' | '〖' | '〘' | '〚' | '⟦' | '❲' | '⦗' | '⁅' | '「' | '『' => '[',
        '】' | '〕' | '〗' | '〙' | '〛' | '⟧' | '❳' | '⦘' | '⁆' | '」' | '』' => ']',
        '。' | '․' => '.',
        '‐' | '‑' | '‒' | '–' | '—' | '−' => '-',
        other => other,
    }
}
