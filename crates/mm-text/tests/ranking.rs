//! Ranks equal those of candidates that are scored alone.

use mm_core::nn::{AttentionMask, Context};
use mm_testing::{initialize, integers, normal};
use mm_text::decoder::{BertDecoder, BertDecoderConfig, TextDecoder};
use mm_text::rank::{AnswerList, RankedAnswer, rank};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const VOCABULARY: i64 = 40;
const START: u32 = 38;
const END: u32 = 39;

fn decoder() -> BertDecoder {
    let config = BertDecoderConfig {
        vocab_size: VOCABULARY,
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        max_position_embeddings: 8,
        ..BertDecoderConfig::default()
    };
    let vs = VarStore::new(Device::Cpu);
    let decoder = BertDecoder::new(&vs.root(), &config, Some(16)).unwrap();
    initialize(&vs, 3);
    decoder
}

/// Three questions of 5, 4 and 2 tokens.
fn context() -> Context {
    let mask = Tensor::from_slice(&[1i64, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 0, 0]).view([3, 5]);
    Context { states: normal(4, &[3, 5, 16]), mask: AttentionMask::padding(&mask) }
}

fn only(context: &Context, question: i64) -> Context {
    context.index_select(&Tensor::from_slice(&[question]))
}

/// Answers of one to four tokens, of which many begin alike: more than one pass holds.
fn answers() -> Vec<Vec<u32>> {
    let tokens: Vec<i64> = Vec::try_from(integers(5, 0..6, &[2400]).view(-1)).unwrap();
    let lengths: Vec<i64> = Vec::try_from(integers(6, 1..5, &[600]).view(-1)).unwrap();
    let row =
        |(tokens, &length): (&[i64], &i64)| tokens[..length as usize].iter().map(|&id| id as u32).collect();
    let mut answers: Vec<Vec<u32>> = tokens.chunks(4).zip(&lengths).map(row).collect();
    let mut seen = std::collections::HashSet::new();
    answers.retain(|answer| seen.insert(answer.clone()));
    answers
}

/// The sum of the log-probabilities of `answer` and the end token, one sequence alone.
fn naive(decoder: &BertDecoder, context: &Context, answer: &[u32]) -> f64 {
    let ids: Vec<i64> = std::iter::once(&START).chain(answer).map(|&id| i64::from(id)).collect();
    let input_ids = Tensor::from_slice(&ids).unsqueeze(0);
    let outputs = tch::no_grad(|| decoder.logits(&TextDecoder::forward(decoder, &input_ids, Some(context))));
    let log_probs = outputs.log_softmax(-1, Kind::Double);
    let next = answer.iter().chain([&END]);
    (0..).zip(next).map(|(place, &token)| log_probs.double_value(&[0, place, i64::from(token)])).sum()
}

#[test]
fn every_answer_scores_as_it_does_alone() {
    let (decoder, context, answers) = (decoder(), context(), answers());
    assert!(answers.len() > 250, "{}", answers.len());
    let list = AnswerList::from_tokens(&answers, &[START], END).unwrap();
    let rankings = rank(&decoder, &context, &list, usize::MAX).unwrap();
    for (question, ranking) in (0..).zip(&rankings) {
        assert_eq!((ranking.answers.len(), ranking.rest_at_most), (answers.len(), 0.0));
        assert!(ranking.answers.is_sorted_by(|a, b| a.log_likelihood >= b.log_likelihood));
        let alone = only(&context, question);
        let mut sum = 0.0;
        for found in &ranking.answers {
            let expected = naive(&decoder, &alone, &answers[found.answer]);
            assert!((found.log_likelihood - expected).abs() < 1e-4, "{found:?} is {expected}");
            sum += expected.exp();
        }
        assert!((ranking.candidates_probability - sum).abs() < 1e-4 * sum);
        let best = ranking.answers[0];
        assert!((best.probability - best.log_likelihood.exp() / sum).abs() < 1e-4);
    }
}

#[test]
fn candidates_are_the_answers_with_the_most_probable_first_tokens() {
    let (decoder, context, answers) = (decoder(), context(), answers());
    let list = AnswerList::from_tokens(&answers, &[START], END).unwrap();
    let all = rank(&decoder, &context, &list, usize::MAX).unwrap();
    let some = rank(&decoder, &context, &list, 100).unwrap();
    for (question, (all, some)) in (0..).zip(all.iter().zip(&some)) {
        let start = Tensor::from_slice(&[i64::from(START)]).unsqueeze(0);
        let alone = only(&context, question);
        let outputs = tch::no_grad(|| decoder.logits(&TextDecoder::forward(&decoder, &start, Some(&alone))));
        let first = |answer: usize| outputs.double_value(&[0, 0, i64::from(answers[answer][0])]);
        let mut expected: Vec<usize> = (0..answers.len()).collect();
        expected.sort_by(|&a, &b| first(b).total_cmp(&first(a)).then(a.cmp(&b)));
        expected.truncate(100);
        let is_candidate = |answer: &RankedAnswer| expected.contains(&answer.answer);
        let expected: Vec<usize> =
            all.answers.iter().filter(|&answer| is_candidate(answer)).map(|answer| answer.answer).collect();
        let found: Vec<usize> = some.answers.iter().map(|answer| answer.answer).collect();
        assert_eq!(found, expected);
        // The probability of the rest is within its bound.
        let rest: f64 = all
            .answers
            .iter()
            .filter(|answer| !is_candidate(answer))
            .map(|answer| answer.log_likelihood.exp())
            .sum();
        assert!(rest > 0.0 && rest <= some.rest_at_most, "{rest} is above {}", some.rest_at_most);
    }
}

#[test]
fn questions_rank_alone_as_in_a_batch() {
    let (decoder, context, answers) = (decoder(), context(), answers());
    let list = AnswerList::from_tokens(&answers, &[START, 7], END).unwrap();
    let batch = rank(&decoder, &context, &list, 50).unwrap();
    for (question, batch) in (0..).zip(&batch) {
        let alone = &rank(&decoder, &only(&context, question), &list, 50).unwrap()[0];
        assert_eq!(alone.answers.len(), 50);
        for (a, b) in batch.answers.iter().zip(&alone.answers) {
            assert_eq!(a.answer, b.answer);
            assert!((a.log_likelihood - b.log_likelihood).abs() < 1e-5);
        }
    }
}

#[test]
fn what_cannot_be_ranked_is_an_error_with_its_numbers() {
    let (decoder, context) = (decoder(), context());
    let error = |answers: &[Vec<u32>], count| {
        let list = AnswerList::from_tokens(answers, &[START], END).unwrap();
        rank(&decoder, &context, &list, count).unwrap_err().to_string()
    };
    assert!(error(&[vec![1]], 0).contains("num_candidates is 0"));
    assert!(error(&[vec![1], vec![40]], 1).contains("an answer has token 40, the decoder 40 embeddings"));
    assert!(error(&[vec![1; 8]], 1).contains("needs 9 positions, the decoder has 8"));
}
