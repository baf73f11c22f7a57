//! JSON: framing of chunked bodies into bounded elements, decoding of one element.
