from signbridge.images.sources.kaggle import LETTERS
from signbridge.model.prompts import DEFAULT_PROMPT
from training.questions import ANSWERS, GESTURE, QUESTIONS, UNKNOWN, vocabulary
from training.stand_in import make_processor, words

STATIC = [letter for letter in LETTERS if letter not in "JZ"]


def test_the_first_question_is_the_products_own_prompt():
    assert GESTURE.prompt == DEFAULT_PROMPT
    assert QUESTIONS[0] is GESTURE


def test_every_letter_has_an_answer_to_every_question_and_no_two_share_all():
    answers = [ANSWERS[letter] for letter in STATIC]
    assert all(UNKNOWN not in row for row in answers)
    assert len(set(answers)) == 24


def test_nearly_every_answer_is_given_for_some_sign():
    for number, question in enumerate(QUESTIONS):
        given = {row[number] for row in ANSWERS.values()} - {UNKNOWN}
        unused = set(range(len(question.answers))) - given
        assert {question.answers[answer] for answer in unused} <= {"four"}, question.name


def test_no_answer_names_a_letter_and_each_is_one_known_word():
    tokenizer = make_processor().tokenizer
    for question in QUESTIONS:
        for answer in question.answers:
            assert len(answer) > 1
            assert answer.islower()
            ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
            assert len(ids) == 1
            assert ids[0] != tokenizer.unk_token_id


def test_prompts_hold_no_unknown_word():
    tokenizer = make_processor().tokenizer
    for question in QUESTIONS:
        for text in (question.prompt, question.follow_up):
            assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"], text
    assert set(vocabulary()) < set(words())


def test_every_letter_can_be_named_in_a_forced_choice():
    tokenizer = make_processor().tokenizer
    assert tokenizer.unk_token_id not in tokenizer(" ".join(STATIC))["input_ids"]


def test_counts_agree_with_the_fingers():
    names = [question.name for question in QUESTIONS]
    numbers = ("zero", "one", "two", "three", "four")
    for sign, row in ANSWERS.items():
        said = {
            name: question.answers[answer]
            for name, question, answer in zip(names, QUESTIONS, row, strict=True)
            if answer != UNKNOWN
        }
        straight = sum(said[f] == "straight" for f in ("index", "middle", "ring", "little"))
        assert said["count"] == numbers[straight], sign
