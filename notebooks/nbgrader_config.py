"""nbgrader's settings for week 14. `make notebooks` puts a copy beside what it builds, which is then a course folder."""

c = get_config()  # noqa: F821 - nbgrader defines it

c.CourseDirectory.course_id = "hpml"
c.CourseDirectory.source_directory = "instructor"
c.CourseDirectory.release_directory = "student"
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}
c.ExecutePreprocessor.timeout = 120
