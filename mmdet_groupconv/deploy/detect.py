"""Detect objects with an ONNX file of a detector: pictures, and boxes in COCO's layout.

    python detect.py detector.onnx images/ --out found/

Written beside the file by mmdet_groupconv's tools/export.py; needs numpy, Pillow, and
onnxruntime or openvino.
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, UnidentifiedImageError

SUFFIXES = '.jpg', '.jpeg', '.png', '.bmp', '.webp'


def installed():
    return 'onnxruntime' if importlib.util.find_spec('onnxruntime') else 'openvino'


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('file', help='ONNX file of a detector')
    parser.add_argument('source', help='image, or folder of images')
    parser.add_argument('--out', required=True, help='folder for pictures and predictions.json')
    parser.add_argument('--score-thr', type=float, default=0.3, help='leave out boxes below this')
    parser.add_argument('--runtime', choices=('onnxruntime', 'openvino'), default=installed())
    parser.add_argument('--threads', type=int, default=0, help='0: as many as there are cores')
    return parser.parse_args(argv)


def in_onnxruntime(file, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, ['CPUExecutionProvider'])
    about = session.get_modelmeta().custom_metadata_map
    return lambda images: session.run(None, {'images': images}), about


def in_openvino(file, threads):
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    about = dict(model.rt_info.items()).get('framework', {})
    about = {key: str(about[key].value) for key in about}
    hint = 'bf16' if about.get('precision') == 'bf16' else 'f32'
    settings = {'INFERENCE_PRECISION_HINT': hint, 'INFERENCE_NUM_THREADS': threads}
    ready = core.compile_model(model, 'CPU', {k: v for k, v in settings.items() if v})

    def run(images):
        found = ready(images)
        return [np.array(found[output]) for output in ready.outputs]

    return run, about


class Detector:
    """classes: names. The file says what they are and which size of image it was trained for."""

    def __init__(self, file, runtime='onnxruntime', threads=0):
        self.run, about = (in_openvino if runtime == 'openvino' else in_onnxruntime)(file, threads)
        if 'scale' not in about:
            raise ValueError(f'{file} does not say what it detects, expected a file of a detector')
        self.classes = json.loads(about['classes'])
        self.scale, self.keep_ratio = json.loads(about['scale']), json.loads(about['keep_ratio'])

    def __call__(self, image):
        """An RGB image of Pillow's -> boxes ``[N, 4]`` in its pixels, scores and labels ``[N]``."""
        width, height = self.size(image)
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        images = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
        boxes, scores, labels = self.run(images)
        factors = image.width / width, image.height / height
        return boxes * np.float32([*factors, *factors]), scores, labels

    def size(self, image):
        """As MMDetection resizes it for a test."""
        if not self.keep_ratio:
            return tuple(self.scale)
        factor = min(
            max(self.scale) / max(image.size),
            min(self.scale) / min(image.size),
        )
        return tuple(int(side * factor + 0.5) for side in image.size)


def images_of(source):
    """The files to look at. Raises FileNotFoundError where there are none."""
    source = Path(source)
    files = sorted(p for p in source.iterdir() if p.suffix.lower() in SUFFIXES) \
        if source.is_dir() else [source]  # fmt: skip
    if not files or not files[0].is_file():
        raise FileNotFoundError(f'{source} is no image and no folder of images')
    return files


def paint(image, boxes, names):
    """Boxes with their names, onto the image."""
    draw = ImageDraw.Draw(image)
    for (left, top, right, bottom), name in zip(boxes.tolist(), names, strict=True):
        draw.rectangle((left, top, max(right, left), max(bottom, top)), outline='lime', width=2)
        draw.text((left + 3, top + 2), name, fill='lime')


def main(argv=None):
    args = parse_args(argv)
    try:
        files, detector = images_of(args.source), Detector(args.file, args.runtime, args.threads)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        sys.exit(f'error: {error}')
    out = Path(args.out)
    (out / 'pictures').mkdir(parents=True, exist_ok=True)
    categories = [dict(id=n, name=name) for n, name in enumerate(detector.classes, 1)]
    found = dict(images=[], annotations=[], categories=categories)
    for number, file in enumerate(files, 1):
        try:
            image = Image.open(file).convert('RGB')
        except (UnidentifiedImageError, OSError) as error:
            print(f'error: {file} is left out: {error}', file=sys.stderr)
            continue
        boxes, scores, labels = detector(image)
        keep = scores >= args.score_thr
        size = dict(width=image.width, height=image.height)
        found['images'].append(dict(id=number, file_name=file.name, **size))
        rows = zip(boxes[keep].tolist(), scores[keep].tolist(), labels[keep].tolist(), strict=True)
        names = []
        for (left, top, right, bottom), score, label in rows:
            names.append(f'{detector.classes[label]} {score:.2f}')
            found['annotations'].append(
                dict(
                    id=len(found['annotations']) + 1, image_id=number, category_id=label + 1,
                    bbox=[left, top, right - left, bottom - top], score=score, iscrowd=0,
                    area=(right - left) * (bottom - top),
                )
            )  # fmt: skip
        paint(image, boxes[keep], names)
        image.save(out / 'pictures' / f'{file.stem}.jpg')
        print(f'{file.name}: {len(names)} boxes')
    (out / 'predictions.json').write_text(json.dumps(found))
    return 0


if __name__ == '__main__':
    sys.exit(main())
