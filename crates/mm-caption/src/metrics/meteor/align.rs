//! The alignment of a hypothesis with a reference: a beam search over the matches that the modules found.
//!
//! An alignment with more matched words is better, then one with fewer chunks, then one with less distance
//! between the positions of its matches (Denkowski and Lavie 2014, section 2). The search follows METEOR 1.5
//! in every detail that decides between equals, because scores depend on it:
//!
//! - A word that no exact match covers counts half, and each sum is rounded down: one stem match adds nothing
//!   to the number of matched words, a paraphrase of two words adds one.
//! - The distance of a match is added to the alignment that leaves the word unmatched, not to the one with
//!   the match, and from there to all later branches.

/// The number of partial alignments that are kept.
const BEAM: usize = 40;

/// The weight of a matched word in the search, by module: exact, then the others.
const SEARCH_WEIGHTS: [f64; 4] = [1.0, 0.5, 0.5, 0.5];

/// A match of some words of the reference with some of the hypothesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    /// The first word in the reference.
    pub start: usize,
    /// The number of words in the reference.
    pub length: usize,
    /// The first word in the hypothesis.
    pub hypothesis_start: usize,
    /// The number of words in the hypothesis.
    pub hypothesis_length: usize,
    /// The module that found it, from 0.
    pub module: usize,
}

/// All possible matches of a pair.
#[derive(Debug)]
pub(super) struct Candidates {
    /// The matches that start at each word of the reference.
    by_start: Vec<Vec<Match>>,
    /// The number of matches that cover each word of the reference and of the hypothesis.
    coverage: [Vec<usize>; 2],
}

impl Candidates {
    pub fn new(reference_length: usize, hypothesis_length: usize) -> Self {
        Self {
            by_start: vec![Vec::new(); reference_length],
            coverage: [vec![0; reference_length], vec![0; hypothesis_length]],
        }
    }

    /// Adds a match. The order counts between equal alignments.
    pub fn push(&mut self, new: Match) {
        self.by_start[new.start].push(new);
        for (coverage, words) in self.coverage.iter_mut().zip(new.words()) {
            coverage[words].iter_mut().for_each(|count| *count += 1);
        }
    }

    /// The best alignment, as the match that starts at each word of the reference.
    pub fn align(&self) -> Vec<Option<Match>> {
        let mut paths = vec![self.certain()];
        for word in 0..self.by_start.len() {
            paths.sort_by_key(Path::rank);
            let mut next = Vec::with_capacity(paths.len() + 8);
            let mut stuck = None;
            for mut path in paths.into_iter().take(BEAM) {
                if !path.used[0][word] {
                    self.branch(path, word, &mut next);
                } else if word < path.next {
                    next.push(path);
                } else if let Some(fixed) = path.matches.get(path.next).copied().flatten() {
                    path.append(&fixed);
                    path.distance += fixed.distance();
                    next.push(path);
                } else {
                    stuck.get_or_insert(path);
                }
            }
            if next.is_empty() {
                next.extend(stuck);
            }
            paths = next;
        }
        // The beam applies to the complete alignments as well.
        paths.sort_by_key(Path::rank);
        paths.truncate(BEAM);
        paths.iter_mut().for_each(Path::end_chunk);
        paths.sort_by_key(Path::rank);
        paths.into_iter().next().map(|path| path.matches).unwrap_or_default()
    }

    /// The alignment of the matches without an alternative: no other match covers any of their words.
    fn certain(&self) -> Path {
        let mut path = Path::new(self.coverage.each_ref().map(Vec::len));
        for matches in &self.by_start {
            let [only] = matches[..] else { continue };
            let alone = |(coverage, words): (&Vec<usize>, std::ops::Range<usize>)| {
                coverage[words].iter().all(|&count| count == 1)
            };
            if self.coverage.iter().zip(only.words()).all(alone) {
                path.take(only);
            }
        }
        path
    }

    /// Continues a path with each match at a word, and without one.
    fn branch(&self, mut path: Path, word: usize, next: &mut Vec<Path>) {
        for candidate in &self.by_start[word] {
            if path.is_free(candidate) {
                let mut branch = path.clone();
                branch.take(*candidate);
                branch.append(candidate);
                path.distance += candidate.distance();
                next.push(branch);
            }
        }
        path.end_chunk();
        path.next += 1;
        next.push(path);
    }
}

impl Match {
    /// The words in the reference and in the hypothesis.
    pub fn words(&self) -> [std::ops::Range<usize>; 2] {
        [
            self.start..self.start + self.length,
            self.hypothesis_start..self.hypothesis_start + self.hypothesis_length,
        ]
    }

    fn distance(&self) -> usize {
        self.start.abs_diff(self.hypothesis_start)
    }
}

/// A partial alignment.
#[derive(Debug, Clone)]
struct Path {
    matches: Vec<Option<Match>>,
    /// The words of the reference and of the hypothesis that a match covers.
    used: [Vec<bool>; 2],
    /// The numbers of matched words in the hypothesis and in the reference, weighted and rounded down.
    matched: [usize; 2],
    chunks: usize,
    distance: usize,
    /// The word of the reference after the last one that is decided.
    next: usize,
    /// The word of the hypothesis after the last match, while a chunk is open.
    chunk_end: Option<usize>,
}

impl Path {
    fn new([reference, hypothesis]: [usize; 2]) -> Self {
        Self {
            matches: vec![None; reference],
            used: [vec![false; reference], vec![false; hypothesis]],
            matched: [0; 2],
            chunks: 0,
            distance: 0,
            next: 0,
            chunk_end: None,
        }
    }

    /// The order of alignments, best first.
    fn rank(&self) -> (std::cmp::Reverse<usize>, usize, usize) {
        (std::cmp::Reverse(self.matched[0] + self.matched[1]), self.chunks, self.distance)
    }

    fn is_free(&self, candidate: &Match) -> bool {
        self.used.iter().zip(candidate.words()).all(|(used, words)| used[words].iter().all(|used| !used))
    }

    /// Records a match and its words.
    fn take(&mut self, new: Match) {
        self.matches[new.start] = Some(new);
        for (used, words) in self.used.iter_mut().zip(new.words()) {
            used[words].fill(true);
        }
    }

    /// Counts a match that follows all others in the reference.
    fn append(&mut self, new: &Match) {
        for (matched, length) in self.matched.iter_mut().zip([new.hypothesis_length, new.length]) {
            *matched = (*matched as f64 + length as f64 * SEARCH_WEIGHTS[new.module]) as usize;
        }
        if self.chunk_end.is_some_and(|end| end != new.hypothesis_start) {
            self.chunks += 1;
        }
        self.next = new.start + new.length;
        self.chunk_end = Some(new.hypothesis_start + new.hypothesis_length);
    }

    fn end_chunk(&mut self) {
        self.chunks += usize::from(self.chunk_end.take().is_some());
    }
}

/// The number of chunks of an alignment: runs of matches that are contiguous in both texts.
pub(super) fn chunks(matches: &[Option<Match>]) -> usize {
    let mut chunks = 0;
    let mut end: Option<usize> = None;
    let mut at = 0;
    while at < matches.len() {
        match &matches[at] {
            None => {
                chunks += usize::from(end.take().is_some());
                at += 1;
            }
            Some(found) => {
                chunks += usize::from(end.is_some_and(|end| end != found.hypothesis_start));
                end = Some(found.hypothesis_start + found.hypothesis_length);
                at = found.start + found.length;
            }
        }
    }
    chunks + usize::from(end.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(reference: usize, hypothesis: usize, matches: &[(usize, usize, usize)]) -> Candidates {
        let mut candidates = Candidates::new(reference, hypothesis);
        for &(start, hypothesis_start, module) in matches {
            candidates.push(Match { start, length: 1, hypothesis_start, hypothesis_length: 1, module });
        }
        candidates
    }

    fn starts(matches: &[Option<Match>]) -> Vec<Option<usize>> {
        matches.iter().map(|found| found.map(|found| found.hypothesis_start)).collect()
    }

    #[test]
    fn more_matched_words_win_over_fewer_chunks() {
        // The second word of the reference has two candidates, of which the other word needs one.
        let aligned = candidates(2, 3, &[(0, 0, 0), (1, 0, 0), (1, 2, 0)]).align();
        assert_eq!(starts(&aligned), [Some(0), Some(2)]);
        assert_eq!(chunks(&aligned), 2);
    }

    #[test]
    fn fewer_chunks_win_over_less_distance() {
        // a b . a / . . a b: the first `a` of the reference is followed by `b` in both.
        let aligned = candidates(4, 4, &[(0, 2, 0), (1, 3, 0), (3, 2, 0)]).align();
        assert_eq!(starts(&aligned), [Some(2), Some(3), None, None]);
        assert_eq!(chunks(&aligned), 1);
    }

    #[test]
    fn a_stem_match_does_not_displace_an_exact_match() {
        let aligned = candidates(2, 1, &[(0, 0, 1), (1, 0, 0)]).align();
        assert_eq!(starts(&aligned), [None, Some(0)]);
    }

    #[test]
    fn a_paraphrase_covers_its_words() {
        let mut candidates = Candidates::new(3, 2);
        let wide = Match { start: 0, length: 3, hypothesis_start: 0, hypothesis_length: 2, module: 3 };
        candidates.push(wide);
        candidates.push(Match { start: 1, length: 1, hypothesis_start: 1, hypothesis_length: 1, module: 1 });
        let aligned = candidates.align();
        assert_eq!(aligned, [Some(wide), None, None]);
        assert_eq!(chunks(&aligned), 1);
    }

    #[test]
    fn texts_without_words_have_no_alignment() {
        assert_eq!(Candidates::new(0, 5).align(), []);
        assert_eq!(Candidates::new(2, 0).align(), [None, None]);
        assert_eq!(chunks(&[]), 0);
    }

    #[test]
    fn a_wide_choice_of_matches_stays_within_the_beam() {
        let all: Vec<_> = (0..30).flat_map(|start| (0..30).map(move |other| (start, other, 0))).collect();
        let aligned = candidates(30, 30, &all).align();
        assert!(aligned.iter().all(Option::is_some));
        assert_eq!(chunks(&aligned), 1);
    }
}
