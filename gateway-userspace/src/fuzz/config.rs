//! What operators write.

use std::path::Path;

use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::{
    config::{self, Format, units::Template},
    tls::Facts,
};

/// A config is read, or every problem has a text; what is shown of one that was read is read again as the same.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // It would read other files.
    if text.contains("include") || text.contains("files") {
        return;
    }
    let file = Path::new("/fuzz/gateway.toml");
    match config::parse(text, file) {
        Ok(read) => {
            let shown = config::show(&read);
            let again = config::parse(&shown, file);
            let again = again.unwrap_or_else(|errors| panic!("what is shown is not read: {errors}\n{shown}"));
            assert_eq!(config::show(&again), shown, "what is shown is another config");
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}

/// In YAML and JSON likewise; and what is converted to TOML and back is the same.
pub fn other_formats(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for (file, format) in [("/fuzz/x.yaml", Format::Yaml), ("/fuzz/x.json", Format::Json)] {
        if !text.contains("include") && !text.contains("files") {
            let _ = config::parse(text, Path::new(file));
        }
        let Ok(toml) = config::convert_text(text, Path::new(file), Format::Toml) else { continue };
        let back = config::convert_text(&toml, Path::new("/fuzz/x.toml"), format)
            .unwrap_or_else(|errors| panic!("what is converted is not read: {errors}\n{toml}"));
        let again = config::convert_text(&back, Path::new(file), Format::Toml);
        assert_eq!(again.as_deref(), Ok(&*toml), "{format} says something else:\n{back}");
    }
}

/// A template holds what it was written with.
pub fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(template) = Template::parse(text) else { return };
    let literal: usize = template.literals().map(str::len).sum();
    assert!(literal <= text.len());
    if !text.contains("${") {
        assert_eq!(template.fixed(), Some(text));
    }
    let shorter: usize = template.with_rest().literals().map(str::len).sum();
    assert!(shorter <= literal);
}

/// PEM and certificates: told what they say, or refused.
pub fn certificate(bytes: &[u8]) {
    for der in CertificateDer::pem_slice_iter(bytes).flatten().take(8) {
        let _ = Facts::of(&der);
    }
    let _ = Facts::of(&CertificateDer::from(bytes));
}
