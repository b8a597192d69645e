"""Goldens of mm-text: tokenizers and small random towers, with the peers' ids and outputs.

    python xtask/goldens/text.py data/goldens/text

- `captions.json`: 1,000 texts.
- `cleaned.json`: texts that open_clip cleans, each with the cleaned text and the ids of open_clip's tokenizer
  for every value of `clean`.
- Folders of tokenizers, each with ids.json, the expected ids of the captions: `clip_tokenizer` (vocab.json
  and merges.txt: CLIP's vocabulary up to its 4,000th merge), `bert_tokenizer` (tokenizer.json: a WordPiece
  vocabulary of the captions), `bert_vocab_txt` (the same as vocab.txt, cased), `siglip_spiece`
  (spiece.model), `siglip2_tokenizer` (tokenizer.json, with the end token in its config only) and
  `openai_tokenizer` (no other file: open_clip's own tokenizer).
- Every other folder: model.safetensors, transformers' config.json and expected.safetensors with input_ids,
  attention_mask, direction, output, and the gradients of sum(output * direction), named "grad.<weight>".
"""

import json
import random
import re
import string
import unicodedata
from collections import Counter

import ftfy.bad_codecs
import open_clip.tokenizer
import sentencepiece
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from shared.models import write_clip_vocabulary, write_json
from shared.script import begin

PINNED = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "tokenizers": "0.23.3",
    "open_clip_torch": "3.3.0",
    "sentencepiece": "0.2.3",
    "ftfy": "6.3.1",
}

CONTEXT = 77
MERGES = 4000
ODD_CAPTIONS = [
    "", " ", "\t\n", "a", "A", "é", "e\u0301", "ÀÉÎÕÜ ñ ß ſ ŒUVRE", "İstanbul ı", "ΑΣ ΟΔΟΣ σς",
    "\u00a0nbsp\u2003em\u3000cjk space", "zero\u200bwidth \u200djoiner", "line\r\nbreak\u2028sep", "你好世界",
    "日本語のキャプション、猫。", "고양이 사진", "Кошка на крыше", "قطة على السطح", "תמונה של חתול", "แมวบนหลังคา",
    "बिल्ली छत पर", "😀", "👩‍🚀🏽 astronaut", "🏳️‍🌈 🇳🇴🇯🇵", "a ❤️ heart ♥ ❤", "👨‍👩‍👧‍👦", "1️⃣2️⃣3️⃣",
    "&amp; &lt;b&gt; &quot;x&quot; &#39;s &eacute; &amp;amp;", "<b>bold</b> <br/>",
    "it's he'll they've I'm we'd you're don't o'clock'", "''s's 't'T 'LL 'Ve",
    "don`t “quoted” ‘single’ —dash– …", "3.14 1,000,000 2024-11-23 ½ ² Ⅷ ٣ 四 ①",
    "$5.00 €9 £3 ¥100 50% #1 @user", "http://example.com/a?b=c&d=e#f", "C:\\path\\file.txt",
    "user@example.com", "!!! ??? ... ,,, ---___***", "(a)[b]{c}<d>", "a_b_c snake_case CamelCase",
    "<|startoftext|>", "<|endoftext|>", "before<|endoftext|>after", "a <|STARTOFTEXT|> b", "< |endoftext| >",
    "[CLS] [SEP] [MASK] [PAD] [UNK]", "\x00nul\x01ctl\x7fdel", "\ufeffbom", "\ufffd replacement",
    "\U0010ffff last", "ﬁ ﬂ ligature", "Ｆｕｌｌｗｉｄｔｈ　ＡＢＣ１２３", "Å Å K Ω ohm", "x" * 500, "word " * 200, "😀" * 100,
    "1234567890" * 20, "!" * 300, "supercalifragilisticexpialidocious", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "  leading and trailing  ", "many     inner\t\tspaces\n\nhere", "a\u0300\u0301\u0302 stacked",
    "Ｚ͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
]
WORDS = (
    "a the photo of picture drawing red green blue yellow small large old young happy sad cat dog horse "
    "bird fish tree house car train boat mountain river street kitchen table chair person man woman child "
    "standing sitting running eating holding looking at on under next to with and in front behind near "
    "two three some many white black wooden plastic bright dark sunny rainy face with tears of joy flag: "
    "Norway skin tone medium-light couple kissing crème brûlée café naïve São Paulo Zürich jalapeño"
).split()
MARKS = [
    "", "", "", ".", ",", "!", "?", " -", ":", ";", "...", " &", " 😀", " 🐈", " 🏔️", " 12", " 3", "'s",
    "\n", "  ",
]


def captions():
    rng = random.Random(11)
    texts = list(ODD_CAPTIONS)
    while len(texts) < 1000:
        words = [rng.choice(WORDS) + rng.choice(MARKS) for _ in range(rng.choice([2, 4, 6, 8, 12, 20]))]
        words = [rng.choice([str.lower, str.lower, str.title, str.upper])(word) for word in words]
        if rng.random() < 0.2:
            words.append(
                "".join(
                    chr(
                        rng.choice(
                            [
                                rng.randrange(33, 127),
                                rng.randrange(0xA1, 0x250),
                                rng.randrange(0x3041, 0x30FF),
                                rng.randrange(0x1F300, 0x1F6FF),
                            ]
                        )
                    )
                    for _ in range(rng.randrange(1, 12))
                )
            )
        texts.append(" ".join(words))
    return texts


SOILED = [
    # Curly quotation marks, ligatures, digraphs, widths.
    "“here’s a ‘test’”", "‛odd‟ „low“ ‚single‛ ‟x‟", "ʼn the modifier ʼ", "rock ’n’ roll",
    "5′ 10″ «guillemets» ‹x›", "“unclosed", "’", "don’t won’t it’s", "ﬂuﬃeﬆ ﬁsh ﬀ ﬄ ﬅ", "Ĳsselmeer ĳs ŉ",
    "Ǳ ǲ ǳ Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ", "ﬃ", "æ œ Œ ß stay", "ﬓ ﬔ Armenian ligatures stay", "ＬＯＵＤ　ＮＯＩＳＥＳ", "Ｕﾀｰﾝ",
    "ｶﾞｷﾞｸﾞ ﾊﾟﾋﾟ ｳﾞ", "（ｆｕｌｌ）　！？～｜￣￥￠￡", "￦ ￨ ￩ ￪ ￫ ￬ ￭ ￮", "ﾡﾢﾣ ￂￃ halfwidth hangul", "a　b　　c", "＜ｂ＞ ＆ａｍｐ；",
    "１２３ＡＢＣ", "｟x｠ ｡｢｣､･",
    # HTML's character references.
    "&amp;", "&amp;amp;", "&amp;amp;amp;", "&amp;amp;amp;amp;amp;", "&lt;b&gt;bold&lt;/b&gt;",
    "<b>&amp; &lt;i&gt;</b>", "a &amp b &lt c", "this&not that &notin; &notit; &notanentity;",
    "&eacute;&Eacute;&EACUTE;", "P&EACUTE;REZ", "BUNDESSTRA&SZLIG;E", "&ntilde; &Ntilde; &NTILDE; &nTILDE;",
    "&hellip;&mdash;&ndash;&nbsp;&shy;", "&NBSP; &HELLIP; &COPY; &REG; &AMP; &LT; &GT; &QUOT;",
    "&#39;&#039;&#0039;&#x27;&#X27;", "&#8217;s &#x2019;s &#8217s", "&#233 &#xe9 &#xE9g",
    "&#xD83D;&#xDCA9; &#55357;&#56489;", "&#128169; &#x1F4A9;",
    "&#0; &#x0; &#x110000; &#99999999999999999999;", "&#1; &#8; &#11; &#12; &#14; &#31; &#127;",
    "&#128; &#129; &#133; &#150; &#x80; &#x9f;", "&#xFFFE; &#xFFFF; &#xFDD0; &#x1FFFF;",
    "&#13; &#10; &#9; &#32; &#160; &#8232;", "&", "&&", "& &; &# &#; &#x; &#xg;", "AT&T R&D Q&A", "a&b;c",
    "&unknown; &Unknown &x", "&checkmark; &Jscr;ohn &HilbertSpace;ancock &NotEqualTilde; &bne;",
    "&copy 2020 &reg &trade &trade;", "&quot;quoted&quot; &apos;single&apos; &ldquo;curly&rdquo;",
    "&amp;quot;twice&amp;quot;", "&amp;#39;twice&amp;#39;", "&amp;lt;script&amp;gt;",
    "http://example.com/?a=1&b=2&copy=3&lt=4", "&frac12; &FRAC12; &sup2; &SUP2; &sup1 x",
    "caf&eacute; &agrave la", "line &amp; one\n<br> line &amp; two\nline &amp;amp; three",
    "line &lt;b&gt;\n&amp; two", "&lt;&lt;&gt;&gt;", "&ThickSpace;&ZeroWidthSpace;x&NoBreak;y",
    "&amp;nbsp;x&amp;nbsp;", "e&#x301; &amp;#x301;", "<e&#x301;>",
    "&CounterClockwiseContourIntegral; &aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa;", "&\u00e9;", "&am\tp;",
    "&amp\n;", "&lt &lt\u00e9", "&#x1F468;&#x200D;&#x1F469;", "&semi; &num; &period; &lowbar;",
    # Controls, terminal escapes, byte order marks, line breaks, composition.
    "\x00nul\x01\x02\x08 \x0b\x0c\x0e\x1f\x7f", "\x1b[36;44mI'm blue\x1b[0m", "\x1b[1;31mred\x1b[K \x1b[2J",
    "\x1b[ not \x1b] an escape \x1b[12", "\x1b[٣m Arabic digits", "\x1b(B", "\x1a substitute \ufffd",
    "\ufeffbom", "bom\ufeff inside\ufeff", "\u206a\u206f\ufff9\ufffa\ufffb\ufffc gone",
    "\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060 stay", "\U000e0001\U000e0067 tags", "\U0001d173 music",
    "a\r\nb\rc\nd", "a\u2028b\u2029c\u0085d", "\r\n\r\n", "a\n\rb\r\r\nc", "tab\tand\x0bvertical\x0cfeed",
    "\x1cfs\x1dgs\x1ers\x1fus", "\u00a0nbsp\u202f\u2003\u205f\u1680spaces\u180e", "cafe\u0301",
    "e\u0301e\u0300 A\u030a \u212b \u2126 \u212a", "a\u0300\u0301\u0302",
    "\u1112\u1161\u11ab\u1100\u1173\u11af", "\u0958 \u0915\u093c", "\u1e9b\u0323 \ufb1d \uf900",
    "e._\u0301 o,\u0308", "\u0344 \u0340 \u0341 \u0343", "q\u0307\u0323 \u0323\u0307", "\ufb2a \u05e9\u05c1",
    # Broken encodings, as found in the wild.
    "sÃ³", "Ã³", "voilÃ\u00a0 le travail", "voilÃ le travail", "Ã la carte", "Ã quele, Ã s, fÃ cil",
    "doesnâ€™t", "donÃ¢â‚¬â„¢t", "The Mona Lisa doesnÃƒÂ¢Ã¢â€šÂ¬Ã¢â€žÂ¢t have eyebrows.",
    "â€œ like this â€\ufffd", "â€œ like this â€", "â€œlike thisâ€\u009d", "âœ” No problems",
    "âœ" + "”" + " &amp; fine", "l’humanitÃ©", "lâ€™humanitÃ©", "â€¦ â€” â€“ â€¢ â„¢", "ââ‚¬â„¢",
    "HÃ´tel â˜…â˜…â˜…â˜…", "Â£5 Â©2020 Â½ Â°C Â¿QuÃ©?", "Â no space", "5Â kg",
    "naÃ¯ve faÃ§ade ZÃ¼rich SÃ£o Paulo", "sÃ?n Ã?berraschung", "Ã…ngstrÃ¶m Ã˜re Ã†", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚",
    "ÐšÐ¾ÑˆÐºÐ°", "Ù‚Ø·Ø©", "à¸‚à¸­", "(à¸‡'âŒ£')à¸‡", "ã\x83\x84", "&macr;\\_(ã\x83\x84)_/&macr;",
    "ðŸ˜€ ðŸ±", "ðŸ\u0090\u00b1", "рџ™‚ вЂ™ вЂњwordsвЂќ", "ГўВЂВ™s GГўВЂВ™s", "β€™ Ξ³ΞµΞΉΞ±", "вЂ”",
    "‚Äî ‚Äúquote‚Äù caf√©", "├⌐t├⌐", "ΓÇ£cp437ΓÇ¥ ┬⌐", "ā€™ ā€\u009d", "Ĺ‚Ăłdka", "Ĺ‚Ä…ka", "ÅŸehir Ä±ÅŸÄ±k",
    "TÃ¼rkÃ§e", "mixed cafÃ© and 日本 “fine”", "日本 â€™ mixed", "Кошка cafÃ© ΑΣ",
    "\x85 next \x91quoted\x92 \x93double\x94 \x96 \x97 \x80", "\x81\x8d\x8f\x90\x9d unassigned",
    "Ã\x81 Ã\x8d", "pi√±ata ‚Ä¶ ≈Ç√≥d≈∫", "Ã¢â‚¬Å“twiceÃ¢â‚¬\u009d", "Ã\u0192Ã‚Â©", "ÃÂ©", "Ã‚Â£",
    "√† la mode", "voilÃƒ la", "1Ã—2 ÃƒÂ—", "Âµm Â±1 Â²", "Aâ‚¬ 5â‚¬", "€ 5 £ 3 ¥ 100", "¿Qué? ¡Sí!",
    "Ã€ bientÃ´t, Ã‰lise", "kÃ¤se und brÃ¶tchen fÃ¼r 3â‚¬", "æ—¥æœ¬èªž", "ä½\xa0å¥½", "ä½ å¥½", "í•œêµ­ì–´",
    "\xed\xa0\xbd\xed\xb2\xa9 cesu", "í\xa0½í²©", "nul À\x80 Ã©", "Ëœ tilde Ë†", "Å\u0160 Å¡",
    "ï¬\u0081sh ï¬‚y", "ï»¿bom", "ï¿½ lost", "â€Ž ltr",
    # Correct texts that look odd and must not change.
    "ÂÃ", "Â", "Ã", "élève à l’école", "Ñandú Über Østre Þór", "10 µm ± 2 °C × ½", "¬¬ ¦ ¤ ¨",
    "(◕‿◕) ಠ_ಠ ¯\\_(ツ)_/¯", "┌─┐ │x│ └─┘", "Œuvre œ-x", "İstanbul ıI", "ΑΣ ΟΔΟΣ σς Σ", "ẞ ŸÉ ĂŞ",
    "Łódź Gdańsk źrebię", "fi™ co® ©2020", "你好世界，。！？", "日本語のキャプション、猫。", "고양이 사진", "Кошка на крыше «дома»",
    "قطة على السطح، هنا", "תמונה של חתול", "แมวบนหลังคา", "बिल्ली छत पर", "😀 👩‍🚀🏽 🏳️‍🌈 1️⃣", "a ❤️ heart ♥",
    "½ ² Ⅷ ٣ 四 ①",
    # For each value of `clean`.
    "", " ", "\t\n ", "  MANY   Spaces\n here ",
    "Snake_case, punctuation! (a) [b] {c} <d> @e #f $g %h ^i *j +k =l ~m `n | \\ / : ; \" '",
    "It'S HE'LL They'VE I'm'D", "'ſ ſ", "a-b a–b", "A.B.C.", "l.o.w.e.r", "___", "...", "ﬁn_al … x",
    "ǅ ΰ ᾳ ŉ",
]


def broken_texts():
    """Sentences of many scripts, read in the encodings that ftfy repairs, with other damage."""
    rng = random.Random(20)
    ftfy.bad_codecs.ok()
    sentences = [
        "Crème brûlée à la carte",
        "Zürich – “schön” und größer…",
        "El niño comió piñata",
        "Łódź, źrebię i żółć",
        "Příliš žluťoučký kůň",
        "Кошка на крыше",
        "η γάτα στη στέγη",
        "İstanbul’da kış",
        "rīts ir jauks",
        "قطة على السطح",
        "猫は屋根の上",
        "แมวบนหลังคา",
        "😀 smile 🐱",
        "it’s 5 € — really™",
        "naïve café № 5",
        "“quotes” and ‘more’",
        "½ cup • 20 °C",
    ]
    encodings = [
        "latin-1",
        "sloppy-windows-1252",
        "sloppy-windows-1251",
        "sloppy-windows-1250",
        "sloppy-windows-1253",
        "sloppy-windows-1254",
        "sloppy-windows-1257",
        "iso-8859-2",
        "macroman",
        "cp437",
    ]
    read = lambda text, encoding: text.encode("utf-8").decode(encoding)
    changes = [
        lambda text: text,
        lambda text: text,
        lambda text: text.replace("\xa0", " "),
        lambda text: read(text, "sloppy-windows-1252"),
        lambda text: "“whole” 日本 " + text,
        lambda text: text + " and <b>&amp;</b>",
        lambda text: text.replace("€", "?").replace("\x9d", "\ufffd"),
        lambda text: text[: len(text) // 2],
        lambda text: text[3:],
        lambda text: text.upper(),
    ]
    texts = [read(sentence, encoding) for sentence in sentences for encoding in encodings[:2]]
    texts += [rng.choice(changes)(read(rng.choice(sentences), rng.choice(encodings))) for _ in range(160)]
    return texts


def cleaned(file):
    """Texts cleaned by open_clip, for every value of `clean`."""
    tokenizers = {
        clean: open_clip.tokenizer.SimpleTokenizer(clean=clean)
        for clean in ["whitespace", "lower", "canonicalize"]
    }
    texts = list(dict.fromkeys(SOILED + broken_texts()))
    row = lambda text, tokenizer: {"text": tokenizer.clean_fn(text), "ids": tokenizer.encode(text)}
    ways = lambda text: {clean: row(text, tokenizer) for clean, tokenizer in tokenizers.items()}
    rows = [{"text": text, **ways(text)} for text in texts]
    file.write_text(
        "[\n"
        + ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
        + "\n]\n",
        encoding="utf-8",
    )


def clip_tokenizer(folder, texts):
    """CLIP's vocabulary, truncated, built as open_clip's SimpleTokenizer builds the full one."""
    write_clip_vocabulary(folder, MERGES)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    write_json(folder / "ids.json", tokenizer(texts, truncation=True, max_length=CONTEXT)["input_ids"])


def bert_tokenizer(folder, texts):
    """A WordPiece vocabulary from own counts: the order of transformers' trainer varies between runs."""
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    )
    letters = Counter("".join(words.elements()))
    frequent = lambda counts, number: [
        item for item, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:number]
    ]
    ends = Counter(word[-length:] for word in words for length in [2, 3] if len(word) > length)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *frequent(letters, 200)]
    tokens += ["##" + piece for piece in [*frequent(letters, 200), *frequent(ends, 100)]]
    tokens += [word for word in frequent(words, 90) if len(word) > 1]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=CONTEXT,
    )
    fast.save_pretrained(folder)
    write_json(folder / "ids.json", fast(texts, truncation=True, max_length=CONTEXT)["input_ids"])


def bert_vocab_txt(folder, bert_folder, texts):
    """BertTokenizer's own file, for a model that keeps case."""
    vocab = json.loads((bert_folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocab) + "\n", encoding="utf-8")
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "model_max_length": CONTEXT},
    )
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    write_json(folder / "ids.json", tokenizer(texts, truncation=True, max_length=CONTEXT)["input_ids"])


def siglip_spiece(folder, texts):
    """SigLIP's tokenizer, saved by its slow class: a unigram model without the dummy prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [
        " ".join(re.sub(f"[{re.escape(string.punctuation)}]", "", text.lower()).split()) for text in texts
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for text in words if text]),
        model_prefix=str(folder / "spiece"),
        vocab_size=1200,
        hard_vocab_limit=False,
        model_type="unigram",
        character_coverage=0.98,
        pad_id=-1,
        bos_id=-1,
        eos_id=1,
        unk_id=2,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "spiece.vocab").unlink()
    tokenizer = transformers.SiglipTokenizer(str(folder / "spiece.model"))
    tokenizer.save_pretrained(folder)
    write_json(folder / "ids.json", tokenizer(texts, truncation=True, max_length=64)["input_ids"])


def siglip2_tokenizer(folder, texts):
    """A small vocabulary as Gemma's: bytes for unknown characters, and the end token added by the config."""
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    letters = sorted(set("".join(texts[100:300]).lower().replace(" ", "▁")))
    merges = [("▁", "a"), ("c", "a"), ("ca", "t"), ("t", "h"), ("th", "e"), ("the", "▁")]
    tokens = [
        *specials,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *letters,
        *("".join(pair) for pair in merges),
    ]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = transformers.Siglip2Tokenizer(
        vocab=vocab, merges=merges, add_bos_token=False, add_eos_token=True, model_max_length=64
    )
    tokenizer.save_pretrained(folder)
    write_json(folder / "ids.json", tokenizer(texts, truncation=True, max_length=64)["input_ids"])


def openai_tokenizer(folder, texts):
    """open_clip's tokenizer, with only composition, lower case and white space of its cleaning."""
    folder.mkdir(parents=True, exist_ok=True)
    simple = open_clip.tokenizer.SimpleTokenizer()
    simple.clean_fn = lambda text: " ".join(unicodedata.normalize("NFC", text).split()).lower()
    rows = []
    for text in texts:
        ids = [simple.sot_token_id, *simple.encode(text), simple.eot_token_id]
        rows.append(ids if len(ids) <= CONTEXT else [*ids[: CONTEXT - 1], simple.eot_token_id])
    write_json(folder / "ids.json", rows)


def randomise(model):
    """Changes every parameter, so that a wrong use of it changes the outputs."""
    for name, parameter in model.named_parameters():
        noise = torch.randn_like(parameter)
        if parameter.dim() > 1:
            parameter.data = noise * (0.5 if "embedding" in name else parameter.shape[1] ** -0.5)
        else:
            parameter.data = (
                1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            ) + 0.2 * noise


def tower(folder, model, batch, pool, grads):
    """Saves a model and its outputs for `batch`."""
    torch.manual_seed(sum(folder.name.encode()))
    randomise(model)
    model.eval()
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    output = pool(model(**batch), batch)
    direction = torch.randn_like(output)
    (output * direction).sum().backward()
    parameters = dict(model.named_parameters())
    expected = {f"grad.{name}": parameters[name].grad for name in grads}
    expected |= {"output": output.detach(), "direction": direction, "input_ids": batch["input_ids"]}
    expected["attention_mask"] = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    save_file(
        {name: tensor.contiguous() for name, tensor in expected.items()}, folder / "expected.safetensors"
    )


SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def clip_batch(pad):
    """Texts of 2 to 13 tokens, padded to 16; begin token 98, end token 99."""
    ids = torch.full((5, 16), pad)
    for row, length in enumerate([13, 2, 7, 12, 3]):
        ids[row, :length] = torch.randint(3, 98, (length,))
        ids[row, 0], ids[row, length - 1] = 98, 99
    return {"input_ids": ids}


def clip(folder, act, eos, pad):
    torch.manual_seed(1)
    sizes = {
        **SIZES,
        "max_position_embeddings": 16,
        "hidden_act": act,
        "bos_token_id": 98,
        "eos_token_id": eos,
    }
    model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**sizes, pad_token_id=pad))
    grads = [
        "embeddings.token_embedding.weight",
        "embeddings.position_embedding.weight",
        "final_layer_norm.weight",
        "encoder.layers.0.self_attn.k_proj.weight",
        "encoder.layers.1.mlp.fc2.bias",
    ]
    tower(folder, model, clip_batch(pad), lambda output, _: output.pooler_output, grads)


def siglip(folder):
    torch.manual_seed(2)
    sizes = {
        **SIZES,
        "max_position_embeddings": 16,
        "projection_size": 24,
        "bos_token_id": 98,
        "eos_token_id": 99,
    }
    model = transformers.SiglipTextModel(transformers.SiglipTextConfig(**sizes))
    grads = ["embeddings.token_embedding.weight", "encoder.layers.0.self_attn.v_proj.bias", "head.weight"]
    tower(
        folder,
        model,
        {"input_ids": torch.randint(0, 100, (4, 16))},
        lambda output, _: output.pooler_output,
        grads,
    )


def bert(folder, pooling):
    torch.manual_seed(3)
    model = transformers.BertModel(
        transformers.BertConfig(**SIZES, max_position_embeddings=20), add_pooling_layer=pooling == "pooler"
    )
    ids, mask = torch.randint(1, 100, (4, 14)), torch.zeros(4, 14, dtype=torch.long)
    for row, length in enumerate([9, 12, 1, 5]):
        mask[row, :length] = 1
    batch = {"input_ids": ids * mask, "attention_mask": mask}
    pools = {
        "cls": lambda output, _: output.last_hidden_state[:, 0],
        "mean": lambda output, batch: (
            (output.last_hidden_state * batch["attention_mask"].unsqueeze(-1)).sum(1)
            / batch["attention_mask"].sum(1, keepdim=True)
        ),
        "pooler": lambda output, _: output.pooler_output,
    }
    grads = [
        "embeddings.position_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
        "embeddings.LayerNorm.weight",
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.1.output.LayerNorm.bias",
    ]
    tower(folder, model, batch, pools[pooling], grads)


def main():
    out = begin(PINNED)
    texts = captions()
    write_json(out / "captions.json", texts)
    clip_tokenizer(out / "clip_tokenizer", texts)
    bert_tokenizer(out / "bert_tokenizer", texts)
    bert_vocab_txt(out / "bert_vocab_txt", out / "bert_tokenizer", texts)
    siglip_spiece(out / "siglip_spiece", texts)
    siglip2_tokenizer(out / "siglip2_tokenizer", texts)
    openai_tokenizer(out / "openai_tokenizer", texts)
    cleaned(out / "cleaned.json")
    clip(out / "clip_quick_gelu", "quick_gelu", eos=99, pad=99)
    clip(out / "clip_gelu", "gelu", eos=99, pad=0)
    clip(out / "clip_legacy_eos", "quick_gelu", eos=2, pad=0)
    siglip(out / "siglip")
    for pooling in ["cls", "mean", "pooler"]:
        bert(out / f"bert_{pooling}", pooling)


if __name__ == "__main__":
    main()
