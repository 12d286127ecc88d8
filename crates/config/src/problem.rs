use std::fmt;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};

use crate::mask::mask;

/// One file of the configuration: its name, as messages should print it, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    pub name: String,
    pub text: String,
}

/// One mistake (or, as a notice, one thing that is accepted without effect) and where it stands.
///
/// `Display` prints one line: `burrow.toml:7:8: builder.x.host: no host type … (did you mean …?)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Bytes of the file's text.
    pub span: Range<usize>,
    /// The key's path, `builder.linux-arm.host`; empty when the file is no TOML.
    pub path: String,
    /// What was found and what there is. Holds no secret.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
}

/// Every mistake of a configuration, in the order of the text. Never empty.
#[derive(Clone, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    /// With every secret masked: these texts get printed.
    sources: Vec<SourceFile>,
}

impl Problems {
    pub(crate) fn new(list: Vec<Problem>, files: &[SourceFile]) -> Problems {
        let sources = files
            .iter()
            .map(|file| SourceFile {
                name: file.name.clone(),
                text: mask(&file.text),
            })
            .collect();
        Problems { list, sources }
    }

    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// For a person: each mistake under its line of the file, with a caret and the hint. With
    /// `color`, ANSI escapes. Passwords and keys in the shown lines are masked.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let mut out = String::new();
        for problem in &self.list {
            out.push_str(&self.render_one(&renderer, problem));
            out.push_str("\n\n");
        }
        let count = match self.list.len() {
            1 => "1 mistake".to_owned(),
            n => format!("{n} mistakes"),
        };
        out.push_str(&format!("{count} in the configuration\n"));
        out
    }

    fn render_one(&self, renderer: &Renderer, problem: &Problem) -> String {
        let title = match problem.path.as_str() {
            "" => problem.message.clone(),
            path => format!("{path}: {}", problem.message),
        };
        let mut group: Group<'_> = Level::ERROR
            .primary_title(normalize_untrusted_str(&title))
            .elements(Vec::<annotate_snippets::Message<'_>>::new());
        if let Some(source) = self.sources.iter().find(|f| f.name == problem.file) {
            // Of a mistake that spans lines, the first line is enough to find it.
            let text = &source.text;
            let start = problem.span.start.min(text.len());
            let end = problem.span.end.clamp(start, text.len());
            let end = text[start..end].find('\n').map_or(end, |n| start + n);
            group = group.element(
                Snippet::source(text.as_str())
                    .path(source.name.as_str())
                    .annotation(AnnotationKind::Primary.span(start..end)),
            );
        }
        if let Some(hint) = &problem.hint {
            group = group.element(Level::HELP.message(normalize_untrusted_str(hint)));
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// One line per mistake.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// As `Display`: the texts stay out of logs.
impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Problems {}

/// Line and column, each from 1 and the column in characters, of the byte at `offset`.
pub(crate) fn line_column(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}
