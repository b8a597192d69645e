"""`mm classify` in transformers: `cargo xtask bench clip` times both from process start to exit.

    classify.py MODEL IMAGE LABEL[,LABEL]...
"""

import sys

import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

model_dir, image, labels = sys.argv[1:]
labels = labels.split(",")
model = CLIPModel.from_pretrained(model_dir)
processor = CLIPProcessor.from_pretrained(model_dir)
inputs = processor(text=labels, images=Image.open(image).convert("RGB"), return_tensors="pt", padding=True)
with torch.inference_mode():
    probabilities = model(**inputs).logits_per_image.softmax(dim=-1)[0]
for label, probability in zip(labels, probabilities.tolist()):
    print(f"{label}\t{probability:.4f}")
