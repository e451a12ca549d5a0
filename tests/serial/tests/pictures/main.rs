//! The memory that predicting from large pictures takes. The allocator's counters count for the
//! whole process: `cargo test --features image --test pictures`.

use std::process::ExitCode;

#[cfg(not(feature = "image"))]
fn main() -> ExitCode {
    println!("skipped: without the feature `image` there are no picture files");
    ExitCode::SUCCESS
}

#[cfg(feature = "image")]
fn main() -> ExitCode {
    use skipgrad_serial_tests as serial;
    serial::run(vec![serial::test("pictures::thirty_photographs", photographs::thirty)])
}

#[cfg(feature = "image")]
mod photographs {
    use peak_alloc::PeakAlloc;
    use skipgrad::{Result, Rng, Tensor, data::Preset, models::ResNet, predict::Predictor};
    use std::{convert::Infallible, fs, io::BufWriter, path::Path};

    #[global_allocator]
    static MEMORY: PeakAlloc = PeakAlloc;

    /// Width and height: 12 megapixels, 36 MB of red, green and blue.
    const SIZE: [u32; 2] = [4000, 3000];

    /// The most that predicting may take, with the network.
    const LIMIT: usize = 200 << 20;

    /// Writes a picture of noise, which does not compress: the file is as large as the picture.
    fn write(path: &Path) {
        let mut encoder =
            png::Encoder::new(BufWriter::new(fs::File::create(path).unwrap()), SIZE[0], SIZE[1]);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::NoCompression);
        let mut state = 1u32;
        let noise = (0..3 * SIZE[0] * SIZE[1]).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        });
        encoder.write_header().unwrap().write_image_data(&noise.collect::<Vec<u8>>()).unwrap();
    }

    /// Thirty pictures as one list of paths, on any number of threads.
    pub(super) fn thirty() -> Result<(), Infallible> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.png");
        write(&path);
        let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0)).unwrap();
        let predictor = Predictor::new(model, Preset::cifar10()).unwrap();
        let expected = predictor.predict_one(&path).unwrap();
        MEMORY.reset_peak_usage();
        let predictions = predictor.predict(vec![path; 30]).unwrap();
        let peak = MEMORY.peak_usage();
        assert!(peak < LIMIT, "{} MiB", peak >> 20);
        assert_eq!(predictions.len(), 30);
        assert_eq!(predictions[29].best().class, expected.best().class);

        // Tensors that are made on the way are not collected either.
        let pictures = (0..30).map(|_| Tensor::full([3000, 1000, 3], 0.5).unwrap());
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let predictor = predictor.batch_size(2);
        assert!(predictor.predict_iter(pictures).all(|prediction| prediction.is_ok()));
        let peak = MEMORY.peak_usage() - before;
        assert!(peak < LIMIT, "{} MiB", peak >> 20);
        Ok(())
    }
}
