"""Problems as answers, RFC 9457."""


def is_problem(answer, status, title):
    """Check that an answer is a problem, and return what it says."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem = answer.json()
    assert (problem["status"], problem["title"]) == (status, title)
    return problem["detail"]
