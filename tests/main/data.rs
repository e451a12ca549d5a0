//! The data module from outside: from files on disk to normalized batches, and the errors of
//! damaged files.

use skipgrad::{
    Error, Rng, Tensor,
    data::{
        Cifar10, Compose, Images, Loader, Normalize, RandomCrop, RandomHorizontalFlip, Splits,
        SyntheticShapes, Transform,
    },
};
use std::{fs, path::Path};
use tempfile::TempDir;

/// Writes images as a file of CIFAR-10: the label, then a red, a green and a blue plane.
fn write_cifar(path: &Path, images: &Images) {
    let mut bytes = vec![];
    for index in 0..images.len() {
        bytes.push(images.labels(index..index + 1).unwrap()[0] as u8);
        let image = images.images(index..index + 1).unwrap();
        for channel in 0..3 {
            bytes.extend(image.data().iter().skip(channel).step_by(3).map(|x| (x * 255.0).round() as u8));
        }
    }
    fs::write(path, bytes).unwrap();
}

/// Returns a folder of CIFAR-10 files with 8 synthetic images in each, and these images.
fn cifar() -> (TempDir, Splits) {
    let synthetic = Splits::from(SyntheticShapes::with_sizes(40, 8, 42).unwrap());
    let folder = tempfile::tempdir().unwrap();
    for i in 0..5 {
        let slice = synthetic.train().slice(8 * i..8 * i + 8).unwrap();
        write_cifar(&folder.path().join(format!("data_batch_{}.bin", i + 1)), &slice);
    }
    write_cifar(&folder.path().join("test_batch.bin"), &synthetic.test());
    (folder, synthetic)
}

#[test]
fn images_written_as_cifar_are_read_back() {
    let (folder, synthetic) = cifar();
    let read = Cifar10::open(folder.path()).unwrap();
    for (read, synthetic) in [(read.train(), synthetic.train()), (read.test(), synthetic.test())] {
        assert_eq!(read.images(0..read.len()).unwrap(), synthetic.images(0..synthetic.len()).unwrap());
        assert_eq!(read.labels(0..read.len()).unwrap(), synthetic.labels(0..synthetic.len()).unwrap());
    }
}

#[test]
fn the_training_recipe_gives_the_same_batches_however_it_is_run() {
    let (folder, _) = cifar();
    let data = Splits::from(Cifar10::open(folder.path()).unwrap());
    let steps = Compose::new()
        .then(RandomCrop::with_padding(4))
        .then(RandomHorizontalFlip)
        .then(Normalize::cifar10());
    let loader = Loader::new(data.train(), 6).shuffle(1).transform(steps.clone()).drop_last(true);
    let run = |workers: usize, epoch: u64, first: usize| {
        let epoch = loader.clone().num_workers(workers).epoch_from(epoch, first).unwrap();
        epoch.collect::<Result<Vec<_>, _>>().unwrap()
    };
    let whole = run(0, 7, 0);
    assert_eq!(whole.len(), 6);
    for (workers, first) in [(0, 4), (1, 0), (2, 0), (2, 5), (4, 0), (4, 6)] {
        assert!(run(workers, 7, first) == whole[first..], "{workers} workers from batch {first}");
    }

    let test = Loader::new(data.test(), 8).transform(steps.eval()).epoch(0).unwrap().next().unwrap().unwrap();
    let mut expected = data.test().images(0..8).unwrap();
    Normalize::cifar10().apply(expected.data_mut(), [8 * 32, 32, 3], &mut Rng::seed(0));
    assert_eq!(test.images, expected, "test images are normalized and nothing else");
    assert_eq!(test.labels, data.test().labels(0..8).unwrap());
}

#[test]
fn damaged_files_are_an_error_with_file_record_and_reason() {
    let (folder, _) = cifar();
    let path = folder.path().join("data_batch_2.bin");
    let whole = fs::read(&path).unwrap();
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Cifar10::open(folder.path()).unwrap_err()
    };

    let first = error(&whole[..whole.len() - 100]);
    assert!(matches!(&first, Error::Malformed { path: named, .. } if *named == path));
    assert!(first.to_string().ends_with("data_batch_2.bin: record 7: expected 3073 bytes, found 2973 bytes"));

    let mut damaged = whole;
    damaged[5 * 3073] = 200;
    let error = error(&damaged).to_string();
    assert!(error.ends_with("data_batch_2.bin: record 5: expected a label below 10, found 200"), "{error}");
}

#[test]
fn tensors_of_a_user_become_batches() {
    let pixels = Tensor::uniform([50, 5, 7, 2], 0.0, 1.0, &mut Rng::seed(1)).unwrap();
    let images = Images::new(pixels, (0..50).map(|i| i % 3).collect(), ["a", "b", "c"]).unwrap();
    let (train, held_out) = (images.slice(0..40).unwrap(), images.slice(40..50).unwrap());
    let transform = Compose::new().then(RandomHorizontalFlip).then(Normalize::fit(&train).unwrap());
    let shapes = |loader: Loader| {
        loader.epoch(0).unwrap().map(|batch| batch.unwrap().images.shape().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(
        shapes(Loader::new(train.clone(), 25).transform(transform.clone())),
        [[25, 5, 7, 2], [15, 5, 7, 2]]
    );
    assert_eq!(shapes(Loader::new(held_out, 10).transform(transform.eval())), [[10, 5, 7, 2]]);
    assert_eq!(train.batches(40, Rng::seed(3)).unwrap().next().unwrap().labels.len(), 40);

    let wrong = Loader::new(train, 5).transform(Compose::new().then(Normalize::cifar10()));
    let error = wrong.epoch(0).unwrap_err().to_string();
    assert_eq!(error, "normalize: mean: expected 2 values, one per channel, found 3");
}
