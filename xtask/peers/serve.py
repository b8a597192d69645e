"""A server of text embeddings in FastAPI and transformers, for `cargo xtask bench serve`.

    serve.py MODEL PORT

Answers POST /v1/embeddings with {"model", "input": TEXT} in OpenAI's form, one text a request, as a
tutorial would write it: the model runs in a thread of FastAPI's pool. Made for torch 2.13,
transformers 5.23.
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import AutoTokenizer, CLIPModel

THREADS = 2

app = FastAPI()
model = tokenizer = None


class Request(BaseModel):
    model: str
    input: str


@app.get("/healthz")
def health():
    return {"status": "ok"}


@app.post("/v1/embeddings")
def embeddings(request: Request):
    tokens = tokenizer(request.input, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        row = model.get_text_features(**tokens).pooler_output[0]
        row = row / row.norm()
    data = [{"object": "embedding", "index": 0, "embedding": row.tolist()}]
    used = int(tokens.input_ids.numel())
    usage = {"prompt_tokens": used, "total_tokens": used}
    return {"object": "list", "data": data, "model": request.model, "usage": usage}


def main():
    global model, tokenizer
    folder, port = sys.argv[1:]
    torch.set_num_threads(THREADS)
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


main()
