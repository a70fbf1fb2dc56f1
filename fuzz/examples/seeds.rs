//! Writes the corpora's first inputs, made by the encoders themselves: `cargo run --example seeds`, in `fuzz/`.

use std::error::Error;
use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use spillway_proto::compress::Compressor;
use spillway_proto::frame::{FrameBuilder, GapReason};
use spillway_proto::record::RecordWriter;
use spillway_proto::{Lane, NextOffset, Offset};

fn main() -> Result<(), Box<dyn Error>> {
    fixtures()?;
    frames()?;
    files("config", 0, "../config/tests/golden", "toml")?;
    seed("config", "agent-reference", 0, spillway_config::AGENT_REFERENCE.as_bytes())?;
    seed("config", "collector-reference", 1, spillway_config::COLLECTOR_REFERENCE.as_bytes())?;
    seed("config", "site-reference", 2, spillway_config::SITE_REFERENCE.as_bytes())?;
    for (number, text) in
        ["64KiB", "8MiB", "10MB", "200ms", "7d", "512kbit", "unlimited", "[::1]:9092", "central.example.com:4433"].iter().enumerate()
    {
        seed("config", &format!("unit-{number}"), 3, text.as_bytes())?;
    }
    seed("control", "close", 255, b"\x28\0\0\0\x03superseded")?;
    seed("control", "numbers", 254, b"\0\x01\x7f\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")?;
    for (number, text) in ["plant-7/orders.v1/.", "a/b/-x.", "spillway/internal/-progress."].iter().enumerate() {
        seed("centre", &format!("name-{number}"), 4, text.as_bytes())?;
    }
    spill()?;
    certificates()
}

/// The spill's fixtures: their files as they are, and without what the target makes itself.
fn spill() -> Result<(), Box<dyn Error>> {
    let root = Path::new("../spill/tests/fixtures/v1");
    let state = fs::read(root.join("state"))?;
    seed("spill", "state", 4, &state)?;
    seed("spill", "state-body", 3, &state[33..state.len() - 4])?;
    for generation in ["g000000000001", "g000000000002"] {
        let index = fs::read(root.join(generation).join("index"))?;
        seed("spill", &format!("{generation}-index"), 2, &index)?;
        // The records behind the head, as kind and length and body.
        let (mut rest, mut records) = (&index[8..], Vec::new());
        while let Some(length) = rest.first_chunk().map(|length| u32::from_le_bytes(*length) as usize) {
            let body = &rest[5..5 + length];
            if rest[4] == 2 {
                seed("spill", &format!("{generation}-identity-{}", body[0]), 0, &body[8..])?;
            }
            if rest[4] != 1 && length < 256 {
                records.extend_from_slice(&[rest[4], length as u8]);
                records.extend_from_slice(body);
            }
            rest = &rest[9 + length..];
        }
        seed("spill", &format!("{generation}-records"), 1, &records)?;
    }
    seed("spill", "chunks", 5 + 6 * 9, b"SWc1....a record behind something that looks like a chunk")
}

/// The golden fixtures of the wire format.
fn fixtures() -> Result<(), Box<dyn Error>> {
    for line in fs::read_to_string("../proto/tests/fixtures/v1.txt")?.lines() {
        let Some((name, hex)) = line.split_once(" = ") else { continue };
        let bytes = unhex(hex)?;
        match name.split_once('.').unwrap_or((name, "")) {
            ("agent", _) => seed("control", name, 0, &[&[3], bytes.as_slice()].concat())?,
            ("collector", _) => seed("control", name, 1, &[&[3], bytes.as_slice()].concat())?,
            // Without the checksum, which the target makes itself.
            ("frame", _) => seed("frame", name, 0, &bytes[..bytes.len() - 4])?,
            ("progress", "position.key" | "session.key") => seed("centre", name, 0, &bytes)?,
            ("progress", "position.value") => seed("centre", name, 1, &bytes)?,
            ("progress", "session.value") => seed("centre", name, 2, &bytes)?,
            _ => {}
        }
    }
    let sync = [b"\x00\x06orders\x00\x00\x00\x03".as_slice(), &[0; 7], &[9], &[0; 7], &[7]].concat();
    seed("centre", "mm2.sync", 3, &sync)
}

fn frames() -> Result<(), Box<dyn Error>> {
    let mut writer = RecordWriter::new(NextOffset::ZERO);
    for offset in (0..200).step_by(3) {
        let headers = [("trace", Some(b"abc".as_slice())), ("", None)];
        let offset = Offset::new(offset).ok_or("offset")?;
        let written = writer.push(offset, 1_700_000_000_000, Some(b"key"), Some(&[b'v'; 40]), headers.into_iter());
        assert!(written);
    }
    let mut builder = FrameBuilder::new();
    builder.start(Lane(7), NextOffset::ZERO);
    builder.data(Lane(1), writer);
    builder.gap(Lane(300), NextOffset::new(9).ok_or("offset")?, NextOffset::new(70_000).ok_or("offset")?, GapReason::Retention);
    let bytes = builder.encode(&mut Compressor::new(3)?).bytes;
    seed("frame", "mixed", 0, &bytes[..bytes.len() - 4])?;
    seed("frame", "checked", 1, &bytes)
}

/// An authority, a site's certificate and a collector's, new ones each time.
fn certificates() -> Result<(), Box<dyn Error>> {
    let authority_key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = params.self_signed(&authority_key)?;
    let issuer = Issuer::new(params, authority_key);
    for (kind, name, usage) in [(1, "plant-7", ExtendedKeyUsagePurpose::ClientAuth), (2, "localhost", ExtendedKeyUsagePurpose::ServerAuth)]
    {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer)?;
        let bundle = [certificate.pem(), authority.pem(), key.serialize_pem()].concat();
        seed("certificate", &format!("{name}.pem"), kind, bundle.as_bytes())?;
        seed("certificate", &format!("{name}.der"), 0, certificate.der())?;
    }
    Ok(())
}

fn files(target: &str, kind: u8, folder: &str, extension: &str) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == extension) {
            let text = fs::read(&path)?;
            let kind = if text.windows(8).any(|window| window == b"[listen]") { kind + 1 } else { kind };
            seed(target, &path.file_stem().unwrap_or_default().to_string_lossy(), kind, &text)?;
        }
    }
    Ok(())
}

fn seed(target: &str, name: &str, first: u8, rest: &[u8]) -> Result<(), Box<dyn Error>> {
    let folder = Path::new("corpus").join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), [&[first], rest].concat())?)
}

fn unhex(hex: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let digits: Vec<_> = hex.chars().map(|digit| digit.to_digit(16).ok_or("not hexadecimal")).collect::<Result<_, _>>()?;
    Ok(digits.chunks(2).map(|pair| (pair[0] * 16 + pair.get(1).copied().unwrap_or(0)) as u8).collect())
}
