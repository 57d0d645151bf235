"""Train a model: python train.py --name RUN --model DPTN --dataset_mode fashion --dataroot DATA ...

Exit status: 0 finished, 2 wrong input or no memory, 3 a gradient was not finite (--on_nan stop), 4
last save failed, 75 stopped by a signal or --max_minutes (--continue_train goes on), 130 at once.
"""

from contextlib import closing
from pathlib import Path

import util.run  # noqa: F401  # isort: skip
from torch.utils.data import DataLoader

from data import create_dataset, report_preparation
from data.loader import create_dataloader, create_validation_dataset, fixed_samples
from models import create_model
from models.presentation import Gallery, create_visualizer, first_line, last_words
from models.training import TrainingRun, Validator
from options.train_options import TrainOptions
from util.run import distributed
from util.run.device import seed_everything
from util.run.folder import RunFolder
from util.run.main import EXIT_INTERRUPTED, EXIT_NOT_FINITE, EXIT_NOT_SAVED, StopRequest, run_main


def main() -> int:
    """Parse, claim the folder of the run, load everything, train."""
    options = TrainOptions()
    opt = options.parse()
    distributed.setup(opt.device)
    seed_everything(opt.seed, opt.deterministic)
    path = Path(opt.checkpoints_dir, opt.name)
    with (
        StopRequest(opt.max_minutes) as stop,
        RunFolder(path, opt.continue_train, opt.overwrite, opt.which_epoch) as folder,
    ):
        loader = create_dataloader(create_dataset(opt), opt)
        model = create_model(opt)
        model.centre_vgg(loader.dataset)
        tested = create_validation_dataset(opt)
        validator = Validator(opt, model, tested, loader.dataset) if tested else None
        epoch = len(loader) * loader.batch_sampler.global_batch  # samples
        end, chosen = (opt.niter + opt.niter_decay, epoch), options.chosen(opt)
        with closing(create_visualizer(model, folder.path, end, chosen)) as visualizer:
            run = TrainingRun(model, folder, visualizer, validator, opt.keep_last, end)
            run.start(opt.which_epoch, lambda: options.record(opt, folder.path))
            report_preparation(opt, loader.dataset, run)
            gallery = Gallery(model, run, fixed_samples(opt, loader.dataset))
            visualizer.message(first_line(opt, run, loader))
            return train(loader, run, gallery, stop)


def train(loader: DataLoader, run: TrainingRun, gallery: Gallery, stop: StopRequest) -> int:
    """Train epoch by epoch: step, log, show, validate, save; returns the exit status."""
    opt, model, visualizer, progress = run.model.opt, run.model, run.visualizer, run.progress
    batches, (last_epoch, _), saved = loader.batch_sampler, run.end, True
    stop.begin()
    while progress.epoch <= last_epoch:
        progress.samples = batches.set_position(progress.epoch, progress.samples)
        for batch in visualizer.throughput.timed(loader):
            model.set_input(batch)
            model.optimize_parameters()
            progress.advance(batches.global_batch)
            visualizer.progress(progress.epoch, progress.samples, progress.total)
            if run.watch(batch, model.stepper.not_finite(), opt.on_nan):
                return EXIT_NOT_FINITE
            if run.due(opt.print_freq):
                run.log(distributed.average_values(model.logged()))
            if run.due(opt.display_freq):
                gallery.show()
            if opt.val_freq and progress.due(opt.val_freq):
                run.validate()
            stopping = distributed.any_process(stop.requested())
            if stopping or run.save_due(opt.save_latest_freq, model.samples_per_save):
                saved = run.save("latest", *([str(progress.total)] * opt.save_by_iter))
            if stopping:
                cause = stop.reason or "another process"
                visualizer.message(f"stopped by {cause} after {progress.total:,} samples")
                return EXIT_INTERRUPTED if saved else EXIT_NOT_SAVED
        model.update_learning_rate()
        finished = progress.next_epoch()
        if finished % opt.save_epoch_freq == 0 or finished == last_epoch:
            saved = run.save("latest", str(finished))
    visualizer.message(last_words(opt, run, saved))
    return 0 if saved else EXIT_NOT_SAVED


if __name__ == "__main__":
    run_main(main, cleanup=distributed.shutdown)
