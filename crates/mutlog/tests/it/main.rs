//! A log on a real folder, and on a disk that loses power at every point.

mod folder;
mod power;
