//! QR codes as pictures.

use qrcode::{Color, EcLevel, QrCode, render::svg};
use rookery_protocol::{ApiError, ErrorCode};

/// White modules around the code, as the standard wants them.
const QUIET_ZONE: usize = 4;
/// Pixels a module.
const SCALE: usize = 8;

/// The code as a black and white PNG.
pub(crate) fn png(text: &str) -> Result<Vec<u8>, ApiError> {
    let code = encode(text)?;
    let (modules, colors) = (code.width(), code.to_colors());
    let side = (modules + 2 * QUIET_ZONE) * SCALE;
    let pixel = |x: usize, y: usize| -> u8 {
        let place = |at: usize| (at / SCALE).checked_sub(QUIET_ZONE).filter(|at| *at < modules);
        match (place(x), place(y)) {
            (Some(x), Some(y)) if colors[y * modules + x] == Color::Dark => 0,
            _ => 255,
        }
    };
    let pixels: Vec<u8> = (0..side * side).map(|at| pixel(at % side, at / side)).collect();
    let mut out = Vec::new();
    let size = u32::try_from(side).expect("a QR code has at most 185 modules a side");
    let mut encoder = png::Encoder::new(&mut out, size, size);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let failed = |_| ApiError::new(ErrorCode::Internal, "The QR code could not be drawn.");
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(out)
}

/// The code as an SVG.
pub(crate) fn svg(text: &str) -> Result<Vec<u8>, ApiError> {
    let picture = encode(text)?.render::<svg::Color>().min_dimensions(256, 256).quiet_zone(true).build();
    Ok(picture.into_bytes())
}

/// The code for a terminal, two modules a character.
#[cfg(feature = "sandbox")]
pub(crate) fn terminal(text: &str) -> Result<String, ApiError> {
    use qrcode::render::unicode::Dense1x2;
    let (dark, light) = (Dense1x2::Light, Dense1x2::Dark);
    Ok(encode(text)?.render::<Dense1x2>().dark_color(dark).light_color(light).quiet_zone(true).build())
}

fn encode(text: &str) -> Result<QrCode, ApiError> {
    QrCode::with_error_correction_level(text, EcLevel::L)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "The text is too long for a QR code."))
}
