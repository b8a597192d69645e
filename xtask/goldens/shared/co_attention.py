"""Co-attention models in plain PyTorch, from the papers: the peers of mm_vqa::co_attention.

Each takes a batch of questions of one length, without padding. After a forward pass, `maps()` of a fusion is
its attention over the image, a list of [Q, heads, N].
"""

import torch
import torch.nn.functional as F
from torch import nn


class Questions(nn.Module):
    """Word embeddings and an LSTM."""

    def __init__(self, vocab, embedding, hidden, layers=1, bidirectional=False):
        super().__init__()
        self.embedding = nn.Embedding(vocab, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.directions = 2 if bidirectional else 1

    def states(self, vectors):
        """The states of all positions, and the last of each direction side by side."""
        outputs, (last, _) = self.lstm(vectors)
        return outputs, torch.cat(list(last[-self.directions :]), -1)


class GatedTanh(nn.Module):
    """Teney et al. 2018, section 3.7."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.value, self.gate = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, x):
        return torch.tanh(self.value(x)) * torch.sigmoid(self.gate(x))


class TanhSum(nn.Module):
    """The first layer of a stacked attention network (Yang et al. 2016, section 3.3)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.value = nn.Linear(inputs, outputs)

    def forward(self, x):
        return torch.tanh(self.value(x))


class Guided(nn.Module):
    """Anderson et al. 2018, section 3.3, with a classifier of gated tanh and a linear layer."""

    def __init__(self, questions, width, attention, glimpses, hidden, classes, score):
        super().__init__()
        self.questions = [questions]  # its parameters are the model's
        states = questions.lstm.hidden_size * questions.directions
        layer = {"gated_tanh": GatedTanh, "tanh": TanhSum}[score]
        self.attention = layer(width + states, attention)
        self.attention_score = nn.Linear(attention, glimpses)
        self.image = GatedTanh(glimpses * width, width)
        self.question = GatedTanh(states, width)
        self.hidden = GatedTanh(width, hidden)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, image, words):
        question = self.questions[0].states(words)[1]
        both = torch.cat([image, question[:, None].expand(-1, image.shape[1], -1)], -1)
        weights = self.attention_score(self.attention(both)).softmax(1)  # [Q, N, glimpses]
        attended = torch.cat([(w * image).sum(1) for w in weights.split(1, -1)], -1)
        joint = self.image(attended) * self.question(question)
        self.weights = weights.transpose(1, 2)
        return self.classifier(self.hidden(joint))

    def maps(self):
        return [self.weights]


class CoAttention(nn.Module):
    """Parallel co-attention at one level (Lu et al. 2016, equations 3 to 6)."""

    def __init__(self, width, attention, inputs, outputs):
        super().__init__()
        self.affinity = nn.Linear(width, width, bias=False)
        self.image = nn.Linear(width, attention, bias=False)
        self.question = nn.Linear(width, attention, bias=False)
        self.image_score, self.question_score = nn.Linear(attention, 1), nn.Linear(attention, 1)
        self.hidden = nn.Linear(inputs, outputs)

    def forward(self, image, question):
        affinity = torch.tanh(torch.einsum("qtd,qnd->qtn", question, self.affinity(image)))
        seen, asked = self.image(image), self.question(question)
        image_hidden = torch.tanh(seen + torch.einsum("qta,qtn->qna", asked, affinity))
        question_hidden = torch.tanh(asked + torch.einsum("qna,qtn->qta", seen, affinity))
        weights = self.image_score(image_hidden).softmax(1)
        words = self.question_score(question_hidden).softmax(1)
        self.weights = weights.transpose(1, 2)
        return (weights * image).sum(1) + (words * question).sum(1)


class Parallel(nn.Module):
    """Hierarchical question-image co-attention (Lu et al. 2016)."""

    def __init__(self, questions, width, attention, hidden, classes):
        super().__init__()
        self.questions = [questions]
        self.unigram, self.bigram, self.trigram = (nn.Conv1d(width, width, size) for size in (1, 2, 3))
        self.word = CoAttention(width, attention, width, width)
        self.phrase = CoAttention(width, attention, 2 * width, width)
        self.question = CoAttention(width, attention, 2 * width, hidden)
        self.classifier = nn.Linear(hidden, classes)

    def phrases(self, words):
        x = words.transpose(1, 2)
        grams = [self.unigram(x), self.bigram(F.pad(x, (0, 1))), self.trigram(F.pad(x, (0, 2)))]
        return torch.tanh(torch.stack(grams)).amax(0).transpose(1, 2)

    def forward(self, image, words):
        phrases = self.phrases(words)
        question = self.questions[0].states(phrases)[0]
        hidden = torch.tanh(self.word.hidden(self.word(image, words)))
        attended = self.phrase(image, phrases)
        hidden = torch.tanh(self.phrase.hidden(torch.cat([attended, hidden], -1)))
        attended = self.question(image, question)
        hidden = torch.tanh(self.question.hidden(torch.cat([attended, hidden], -1)))
        return self.classifier(hidden)

    def maps(self):
        return [level.weights for level in (self.word, self.phrase, self.question)]


class MultiHead(nn.Module):
    """Attention of x over y."""

    def __init__(self, width, heads, dropout):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.heads, self.dropout = heads, nn.Dropout(dropout)

    def forward(self, x, y):
        def split(states):
            return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        q, k, v = split(self.q_proj(x)), split(self.k_proj(y)), split(self.v_proj(y))
        self.weights = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        return self.out_proj((self.dropout(self.weights) @ v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, inputs, hidden, outputs, dropout):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.fc2(self.dropout(self.fc1(x).relu()))


class Block(nn.Module):
    """The SA unit, or with `guided` the SGA unit (Yu et al. 2019, section 3)."""

    def __init__(self, width, heads, mlp, dropout, guided):
        super().__init__()
        self.self_attn, self.layer_norm1 = MultiHead(width, heads, dropout), nn.LayerNorm(width, 1e-6)
        if guided:
            self.encoder_attn = MultiHead(width, heads, dropout)
            self.encoder_attn_layer_norm = nn.LayerNorm(width, 1e-6)
        self.mlp, self.layer_norm2 = Mlp(width, mlp, width, dropout), nn.LayerNorm(width, 1e-6)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, y=None):
        x = self.layer_norm1(x + self.dropout(self.self_attn(x, x)))
        if y is not None:
            x = self.encoder_attn_layer_norm(x + self.dropout(self.encoder_attn(x, y)))
        return self.layer_norm2(x + self.dropout(self.mlp(x)))


class Stack(nn.Module):
    def __init__(self, layers, *sizes):
        super().__init__()
        self.layers = nn.ModuleList(Block(*sizes) for _ in range(layers))

    def forward(self, x, y=None):
        for layer in self.layers:
            x = layer(x, y)
        return x


class Reduction(Mlp):
    """Yu et al. 2019, section 4.3."""

    def __init__(self, width, hidden, glimpses, outputs, dropout):
        super().__init__(width, hidden, glimpses, dropout)
        self.merge = nn.Linear(glimpses * width, outputs)

    def forward(self, states):
        weights = super().forward(states).softmax(1)  # [Q, S, glimpses]
        self.weights = weights.transpose(1, 2)
        return self.merge(torch.cat([(w * states).sum(1) for w in weights.split(1, -1)], -1))


class Mcan(nn.Module):
    """Deep modular co-attention, encoder-decoder (Yu et al. 2019)."""

    def __init__(self, questions, width, heads, mlp, layers, reduction, glimpses, output, classes, dropout):
        super().__init__()
        self.questions = [questions]
        states = questions.lstm.hidden_size * questions.directions
        if states != width:
            self.question_projection = nn.Linear(states, width)
        self.encoder = Stack(layers, width, heads, mlp, dropout, False)
        self.decoder = Stack(layers, width, heads, mlp, dropout, True)
        self.question_reduction = Reduction(width, reduction, glimpses, output, dropout)
        self.image_reduction = Reduction(width, reduction, glimpses, output, dropout)
        self.norm = nn.LayerNorm(output, 1e-6)
        self.classifier = nn.Linear(output, classes)

    def forward(self, image, words):
        question = self.questions[0].states(words)[0]
        if hasattr(self, "question_projection"):
            question = self.question_projection(question)
        question = self.encoder(question)
        image = self.decoder(image, question)
        both = self.question_reduction(question) + self.image_reduction(image)
        return self.classifier(self.norm(both))

    def maps(self):
        read = self.image_reduction.weights
        blocks = [layer.self_attn.weights for layer in self.decoder.layers]
        return [*[(read.mean(1)[:, None, None] @ weights)[:, :, 0] for weights in blocks], read]


class Model(nn.Module):
    """Projected image tokens, with learned positions if there are any, and a fusion."""

    def __init__(self, tokens_width, width, positions, question, fusion):
        super().__init__()
        self.image_projection = nn.Linear(tokens_width, width)
        if positions:
            self.image_positions = nn.Embedding(positions, width)
        self.question, self.fusion = question, fusion

    def forward(self, tokens, input_ids):
        image = self.image_projection(tokens)
        if hasattr(self, "image_positions"):
            image = image + self.image_positions.weight
        return self.fusion(image, self.question.embedding(input_ids))
